"""The frames that were recorded between real gateways and a runner, from tests/captures."""

import json
from pathlib import Path
from typing import Any, NamedTuple

CAPTURES = Path(__file__).parent.parent / "captures"
_NAMES = {
    ("runner", 0): "Err.Resp",
    ("gateway", 1): "PrepareConf.Req",
    ("runner", 1): "PrepareConf.Resp",
    ("gateway", 2): "HTTPReqCall.Req",
    ("runner", 2): "HTTPReqCall.Resp",
    ("runner", 3): "ExtraInfo.Req",
    ("gateway", 3): "ExtraInfo.Resp",
    ("gateway", 4): "HTTPRespCall.Req",
    ("runner", 4): "HTTPRespCall.Resp",
}


class Recorded(NamedTuple):
    """One frame: where it stands (version/case#number), its message's name, its bytes, and what it says."""

    where: str
    name: str
    frame: bytes
    view: Any


class Shortened(NamedTuple):
    """One frame of which only the beginning was kept, and how many bytes it had."""

    where: str
    name: str
    beginning: bytes
    size: int


def _load() -> tuple[list[Recorded], list[Shortened]]:
    whole = []
    shortened = []
    for path in sorted(CAPTURES.glob("*/*.json")):
        for number, entry in enumerate(json.loads(path.read_text())["frames"]):
            where = f"{path.parent.name}/{path.stem}#{number}"
            name = _NAMES[entry["from"], entry["type"]]
            beginning, dots, note = entry["frame"].partition("...")
            if dots:
                size = int(note.removeprefix("(").removesuffix(" bytes)"))
                shortened.append(Shortened(where, name, bytes.fromhex(beginning), size))
            else:
                whole.append(Recorded(where, name, bytes.fromhex(beginning), entry["view"]))
    return whole, shortened


WHOLE, SHORTENED = _load()
