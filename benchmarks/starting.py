"""How long the runner takes to come up, and what it holds before the first call."""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.cases import Gateway, prepare_frame
from benchmarks.measuring import Kind, started

PREPARED = prepare_frame("stop")


class Start(NamedTuple):
    """The starts of one kind of server.

    Attributes:
        server: its kind.
        accepts: seconds from start to the first accepted connection, each time.
        answers: seconds from start to the first answered frame, each time.
        megabytes: of each process after that, a median; the first process first.
    """

    server: str
    accepts: Sequence[float]
    answers: Sequence[float]
    megabytes: Sequence[float]


def starts(kind: Kind, folder: Path, times: int) -> Start:
    """Start a kind of server some times.

    Raises:
        Failure: it does not start.
    """
    accepts, answers, sizes = [], [], []
    for _ in range(times):
        begin = time.monotonic()
        with started(kind, folder) as server:
            accepts.append(server.start_seconds)
            gateway = Gateway(server.socket)
            gateway.prepare(PREPARED.read_bytes())
            answers.append(time.monotonic() - begin)
            gateway.close()
            sizes.append(server.megabytes("VmRSS"))
    usual = min(len(one) for one in sizes)
    return Start(kind.name, accepts, answers, [statistics.median(one[i] for one in sizes) for i in range(usual)])
