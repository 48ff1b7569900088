"""Many connections, and slow ones."""

import contextlib
import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from apisix.runner.wire.messages import decode_prepare_conf_resp, encode_http_req_call_req, encode_prepare_conf_req
from tests.chaos.load import PLUGINS, Load, hold_idle, still_open
from tests.chaos.processes import ready_workers, wait_until
from tests.chaos.table import Table
from tests.server.connections import body_of
from tests.server.processes import Start

MANY = 2000
SLOW = 25
USUAL_LIMIT = ("sh", "-c", 'ulimit -Sn 1024 && exec "$@"', "sh")
"""The limit of open files that most systems start a process with; it may be raised."""


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """Let this process open as many files as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_idle_connections(start: Start, table: Table) -> None:
    runner = start(PLUGINS, prefix=USUAL_LIMIT)
    with Load(runner.path) as load:
        load.run_for(1)
        held = hold_idle(runner.path, MANY)
        wait_until(lambda: sum(worker.connections for worker in ready_workers(runner.path)) >= MANY)
        load.run_for(5)
        assert still_open(held) == MANY
        for sock in held:
            sock.close()
        wait_until(lambda: sum(worker.connections for worker in ready_workers(runner.path)) < 100)
        load.run_for(1)
    table.add("idle connections", f"{MANY} at once, for 5 s; started with a limit of 1,024 open files", load)
    assert not load.failures, load.failures


def test_one_byte_a_second(start: Start, table: Table) -> None:
    runner = start(PLUGINS)
    with ExitStack() as stack, Load(runner.path) as load:
        connections = [stack.enter_context(runner.connect()) for _ in range(2 * SLOW)]
        token = connections[0].prepare(("quick", ""))
        prepare = encode_prepare_conf_req([("quick", "")], "#")
        call = encode_http_req_call_req(0, b"\x7f\x00\x00\x01", 0, "/", None, None, token)
        rest = 30
        frames = [(connection, prepare if number % 2 else call) for number, connection in enumerate(connections)]
        for connection, frame in frames:
            connection.send(frame[:-rest])
        for at in range(rest):
            next_second = time.monotonic() + 1
            for connection, frame in frames:
                connection.send(frame[len(frame) - rest + at :][:1])
            with contextlib.suppress(ValueError):
                time.sleep(next_second - time.monotonic())
        for number, connection in enumerate(connections):
            frame = connection.receive()
            assert decode_prepare_conf_resp(frame) if number % 2 else body_of(frame).endswith(" /")
    table.add("one byte a second", f"{2 * SLOW} clients, half of them preparing confs, for {rest} s", load)
    assert not load.failures, load.failures
