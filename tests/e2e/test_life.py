"""The runner ends, and is there again."""

from concurrent.futures import ThreadPoolExecutor

from tests.e2e.client import Client
from tests.e2e.runner import RunnerProcess
from tests.e2e.site import plugin, pre_req, since
from tests.e2e.upstream import Upstream

PREPARED = "PrepareConf took"


@pre_req(plugin("stops", status=201, body="answered"))
def test_the_next_runner_answers_as_the_last_one_did(client: Client, runner: RunnerProcess) -> None:
    assert client.get().status == 201
    runner.restart()
    assert [client.get().status for _ in range(3)] == [201, 201, 201]


@since("2.11", "conf tokens that all workers of the gateway share")
@pre_req(plugin("stops", status=201, body="answered"))
def test_the_next_runner_knows_the_confs_of_the_last_one(client: Client, runner: RunnerProcess) -> None:
    assert client.get().status == 201
    logged = len(runner.text())
    runner.kill()
    runner.start()
    assert client.get().status == 201
    assert PREPARED not in runner.text()[logged:]


@pre_req(plugin("stops", status=201, body="answered"))
def test_no_request_is_lost_while_runners_change(client: Client, runner: RunnerProcess) -> None:
    statuses: list[int] = []

    def ask_until_told() -> None:
        while not done:
            statuses.append(client.get().status)

    done = False
    with ThreadPoolExecutor(2) as pool:
        asking = pool.submit(ask_until_told)
        runner.reload()
        done = True
        asking.result()
    assert set(statuses) == {201}


@pre_req(plugin("stops", status=201, body="answered"))
def test_without_a_runner_nothing_passes(client: Client, runner: RunnerProcess, upstream: Upstream) -> None:
    assert client.get().status == 201
    runner.kill()
    try:
        assert [client.get().status for _ in range(2)] == [503, 503]
        assert upstream.seen == []
    finally:
        runner.start()
    assert client.get().status == 201


@since("2.12", "allow_degradation")
@pre_req(plugin("stops", status=201, body="answered"), allow_degradation=True)
def test_without_a_runner_allow_degradation_lets_pass(
    client: Client, runner: RunnerProcess, upstream: Upstream
) -> None:
    runner.kill()
    try:
        assert client.get().text == "from the upstream"
    finally:
        runner.start()
    assert client.get().status == 201
