"""Recorded exchanges as the replay needs them: what was shortened for the file is whole again."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from apisix.runner.wire.messages import Stop, encode_http_req_call_resp

CAPTURES = Path(__file__).parent.parent / "captures"
LARGE_STOP = Stop(200, None, b"y" * 1048576)
"""The answer of the case large-stop-body-1m, whose frame the file keeps only the beginning of."""


class Entry(NamedTuple):
    """One frame: who sent it, on which connection, its type, and what it says (None where it was shortened)."""

    sender: str
    connection: int
    type: int
    frame: bytes
    view: dict[str, Any] | None


class Seen(NamedTuple):
    """What a peer received: its first line's facts, headers in order, and the body."""

    facts: tuple[str, ...]
    headers: list[tuple[str, str]]
    body: bytes


class Case(NamedTuple):
    """One recorded exchange."""

    name: str
    version: str
    route: dict[str, Any]
    request: bytes
    entries: list[Entry]
    upstream: list[Seen]
    client: Seen

    @property
    def label(self) -> str:
        """For the test's id."""
        return f"{self.version}-{self.name}"


def load() -> list[Case]:
    """Every recorded exchange of every version."""
    return [_case(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(CAPTURES.glob("*/*.json"))]


def _case(data: dict[str, Any]) -> Case:
    plugin: dict[str, Any] = {"allow_degradation": data["allow_degradation"]}
    if data["conf"] is not None:
        plugin["conf"] = data["conf"]
    plugins = {data["plugin"]: plugin}
    if data["proxy_rewrite_uri"]:
        plugins["proxy-rewrite"] = {"uri": data["proxy_rewrite_uri"]}
    client = data["client_saw"]
    return Case(
        name=data["case"],
        version=data["apisix"],
        route={"uri": "/*", "plugins": plugins},
        request=_request(data["http_request"], data["upstream_saw"]),
        entries=[_entry(entry) for entry in data["frames"]],
        upstream=[
            Seen((seen["method"], seen["target"]), _headers(seen["headers"]), _body(seen["body"], b"x"))
            for seen in data["upstream_saw"]
        ],
        client=Seen((str(client["status"]),), _headers(client["headers"]), _body(client["body"], b"y")),
    )


def _entry(entry: dict[str, Any]) -> Entry:
    beginning, dots, _ = entry["frame"].partition("...")
    frame = encode_http_req_call_resp(_id_of_large_stop(beginning), LARGE_STOP) if dots else bytes.fromhex(beginning)
    return Entry(entry["from"], entry["conn"], entry["type"], frame, None if dots else entry["view"])


def _id_of_large_stop(beginning: str) -> int:
    """The id stands where the table's first slot points; no test looks at it, the gateway does not either."""
    return int.from_bytes(bytes.fromhex(beginning)[32:36], "little")


def _request(text: str, upstream_saw: list[dict[str, Any]]) -> bytes:
    raw = text.encode("latin-1")
    shortened = re.search(rb"<(\d+) bytes in all>$", raw)
    if shortened is None:
        return raw
    head, end, _ = raw.partition(b"\r\n\r\n")
    if end:
        length = re.search(rb"Content-Length: (\d+)", head)
        assert length is not None
        whole = head + end + b"x" * int(length[1])
    else:
        lines = [f"{name}: {value}\r\n" for name, value in upstream_saw[0]["headers"] if name.startswith("x-h")]
        whole = raw.partition(b"x-h0")[0] + "".join(lines).encode() + b"\r\n"
    assert len(whole) == int(shortened[1])
    return whole


def _headers(headers: list[list[str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers]


def _body(text: str, filling: bytes) -> bytes:
    shortened = re.fullmatch(r"<(\d+) bytes>", text)
    return filling * int(shortened[1]) if shortened else text.encode("latin-1")
