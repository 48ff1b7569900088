"""Every recorded exchange once more: given the recorded request and the recorded answers of the runner, the embedded
gateway must send the recorded frames, and show upstream and client what the real one showed.

What may differ stands in this comment and in the functions under "Tolerated" alone:

- Counters and clocks: call ids count from the case's first one, a route's version (the key's last part) is any, dates
  are any, and the header Server names the version that was asked for.
- The gateway listens on a free port, where the recorded ones had 9080.
- Lua's hash order: the order of args and headers in frames, and of args in a target that was written anew; arguments
  and headers of one name keep their order.
- The order of headers that have different names, upstream and client.
"""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from apisix.runner.gateway import Gateway
from apisix.runner.wire import messages as m
from apisix.runner.wire.frame import FrameType
from tests.gateway.peers import FakeRunner, Message, RawUpstream, send_raw
from tests.gateway.recorded import Case, Entry, Seen, load

CASES = load()


# Tolerated


def _view_tolerated(view: dict[str, Any], first_id: int) -> dict[str, Any]:
    view = dict(view)
    if "id" in view:
        view["id"] -= first_id
    if view.get("key"):
        view["key"] = view["key"].rpartition("#")[0]
    for field in ("args", "headers"):
        if view.get(field):
            view[field] = _by_name((name, _undated(name, value)) for name, value in view[field])
    return view


def _seen_tolerated(seen: Seen) -> Seen:
    headers = _by_name((name, _undated(name, value)) for name, value in seen.headers)
    facts = tuple(_args_sorted(fact) for fact in seen.facts)
    return Seen(facts, [(name, value or "") for name, value in headers], seen.body)


def _by_name(pairs: Any) -> list[tuple[str, str | None]]:
    return sorted(((name, value) for name, value in pairs), key=lambda pair: str(pair[0]))


def _undated(name: str, value: str | None) -> str | None:
    if name.lower() == "date":
        return "any"
    return re.sub(r"^APISIX/.*", "APISIX/any", value) if name == "Server" and value else value


def _args_sorted(target: str) -> str:
    path, mark, query = target.partition("?")
    return path + mark + "&".join(sorted(query.split("&"), key=lambda arg: arg.partition("=")[0]))


def _port_tolerated(seen: list[tuple[str, str]], port: int) -> list[tuple[str, str]]:
    return [
        (name, "9080" if name.lower() == "x-forwarded-port" and value == str(port) else value) for name, value in seen
    ]


# The peers, as they were


def _upstream_response(request: Message) -> bytes:
    """What the recorded upstream answered: its query says which status, and whether in chunks."""
    target = request.start.split()[1]
    status = re.search(r"[?&]status=(\d+)", target)
    code = int(status[1]) if status else 200
    head = (
        f"HTTP/1.1 {code} Whatever\r\nServer: BaseHTTP/0.6 Python/3.11.7\r\nDate: Sat, 21 Nov 2026 01:56:40 GMT\r\n"
        "Content-Type: application/json\r\nX-Upstream: yes\r\nSet-Cookie: u=1\r\n"
    )
    if "chunked=1" in target:
        return (head + "Transfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n").encode()
    if code == 204:
        return (head + "\r\n").encode()
    body = "" if request.start.startswith("HEAD ") else "upstream says hello"
    return (head + f"Content-Length: 19\r\n\r\n{body}").encode()


class _RecordedRunner:
    """Gives the recorded answers, whatever it is asked; closes where the recorded runner did not answer."""

    def __init__(self, entries: list[Entry]) -> None:
        self._rest = list(entries)

    async def answer(self, connection: int, frame: bytes) -> bytes | None:
        if self._rest:
            self._rest.pop(0)
        answer = b""
        while self._rest and self._rest[0].sender == "runner":
            answer += self._rest.pop(0).frame
        return answer or None


def _view(frame: bytes) -> dict[str, Any]:
    """A gateway's frame in the form of the recorded views: bytes as latin-1."""
    match frame[0]:
        case FrameType.PREPARE_CONF:
            prepare = m.decode_prepare_conf_req(frame)
            return {"conf": _pairs(prepare.conf), "key": prepare.key}
        case FrameType.HTTP_REQ_CALL:
            call = m.decode_http_req_call_req(frame)
            return {
                "id": call.id,
                "src_ip": call.src_ip.hex(),
                "method": call.method,
                "path": _latin(call.path),
                "args": _pairs(call.args),
                "headers": _pairs(call.headers),
                "conf_token": call.conf_token,
            }
        case FrameType.EXTRA_INFO:
            result = m.decode_extra_info_resp(frame)
            return {"result": None if result is None else result.decode("latin-1")}
        case _:
            response = m.decode_http_resp_call_req(frame)
            return {
                "id": response.id,
                "status": response.status,
                "headers": _pairs(response.headers),
                "conf_token": response.conf_token,
            }


def _latin(text: str | None) -> str | None:
    return None if text is None else text.encode("utf-8", "surrogateescape").decode("latin-1")


def _pairs(pairs: Any) -> list[list[str | None]] | None:
    return None if pairs is None else [[_latin(name), _latin(value)] for name, value in pairs]


# The replay


async def _replay(case: Case, folder: Path) -> tuple[FakeRunner, RawUpstream, Message, int]:
    recorded = _RecordedRunner(case.entries)
    async with (
        FakeRunner(folder / "runner.sock", recorded.answer) as runner,
        RawUpstream(_upstream_response) as upstream,
        Gateway(runner.path, port=0, version=case.version) as gateway,
    ):
        gateway.put_route(case.name, {**case.route, "upstream": {"nodes": {upstream.node: 1}}})
        client = await send_raw(gateway.port, case.request)
        return runner, upstream, client, gateway.port


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_a_recorded_exchange_is_played_as_the_real_gateway_did(case: Case, tmp_path: Path) -> None:
    runner, upstream, client, port = asyncio.run(_replay(case, tmp_path))

    expected = [entry for entry in case.entries if entry.sender == "gateway"]
    assert [frame[0] for _, frame in runner.received] == [entry.type for entry in expected]
    first_id = min((entry.view["id"] for entry in expected if entry.view and "id" in entry.view), default=0)
    for (_, frame), entry in zip(runner.received, expected, strict=True):
        assert entry.view is not None
        view = _view(frame)
        if view.get("headers"):
            view["headers"] = _port_tolerated(view["headers"], port)
        assert _view_tolerated(view, 0) == _view_tolerated(entry.view, first_id)
    assert _partition([number for number, _ in runner.received]) == _partition([entry.connection for entry in expected])

    seen = [
        Seen(tuple(request.start.split(" ")[:2]), _port_tolerated(request.headers, port), request.body)
        for request in upstream.seen
    ]
    assert [_seen_tolerated(each) for each in seen] == [_seen_tolerated(each) for each in case.upstream]
    shown = Seen((str(client.status),), client.headers, client.body)
    assert _seen_tolerated(shown) == _seen_tolerated(case.client)


def _partition(connections: list[int]) -> list[int]:
    """Which frames shared a connection, whatever its number: each frame's connection by its first appearance."""
    return [connections.index(number) for number in connections]


def test_every_recorded_exchange_is_played() -> None:
    assert len(CASES) == 169
