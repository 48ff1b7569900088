"""One suite for any gateway: with E2E_GATEWAY set, through that one; else through the embedded one, as three versions.

- E2E_GATEWAY: its address, such as http://127.0.0.1:9080.
- E2E_ROUTES: its standalone `apisix.yaml`, which the suite writes.
- E2E_SOCKET: the socket of its `ext-plugin.path_for_test`, on which the suite runs the runner.
- E2E_APISIX_VERSION: such as 3.18.0; what is newer is skipped.
- E2E_UPSTREAM_HOST: the name under which the gateway reaches this machine, 127.0.0.1 by default. With another one
  the suite's upstream listens on all addresses.
"""

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.e2e.client import Client
from tests.e2e.runner import RunnerProcess
from tests.e2e.site import Site, embedded, number, plugins_of, unfit
from tests.e2e.upstream import Upstream

GATEWAY = os.environ.get("E2E_GATEWAY")
UPSTREAM_HOST = os.environ.get("E2E_UPSTREAM_HOST", "127.0.0.1")
VERSIONS = [os.environ["E2E_APISIX_VERSION"]] if GATEWAY else ["2.7", "2.15.3", "3.18.0"]
HERE = Path(__file__).parent

ROUTES = pytest.StashKey[dict[str, dict[str, dict[str, object]]]]()
HOST = pytest.StashKey[str]()
RUNNER = pytest.StashKey[RunnerProcess]()
LOGGED = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "route(**plugins): plugins of the test's route")
    config.addinivalue_line("markers", "since(version, what): the test needs that version of APISIX")
    config.addinivalue_line("markers", "before(version, what): the test is about APISIX older than that")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each test its host and skip what does not fit; keep the routes of the others, by version."""
    routes: dict[str, dict[str, dict[str, object]]] = {version: {} for version in VERSIONS}
    for count, item in enumerate(item for item in items if item.path.is_relative_to(HERE)):
        callspec = getattr(item, "callspec", None)
        version = None if callspec is None else callspec.params.get("version")
        if version is None:
            continue
        reason = unfit(item, version)
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
            continue
        item.stash[HOST] = f"case-{count}.test"
        routes[version][item.stash[HOST]] = plugins_of(item.iter_markers("route"))
    config.stash[ROUTES] = routes


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the runner logged during a test that fails."""
    report = yield
    if report.failed and LOGGED in item.stash:
        report.sections.append(("runner's log", item.config.stash[RUNNER].text()[item.stash[LOGGED] :]))
    return report


@pytest.fixture(scope="session", params=VERSIONS, ids=lambda version: f"apisix-{version}")
def version(request: pytest.FixtureRequest) -> str:
    """The APISIX that is asked."""
    return str(request.param)


@pytest.fixture(scope="session")
def session_upstream() -> Iterator[Upstream]:
    upstream = Upstream("127.0.0.1" if UPSTREAM_HOST == "127.0.0.1" else "0.0.0.0")
    yield upstream
    upstream.stop()


@pytest.fixture(scope="session")
def socket_path(version: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(os.environ["E2E_SOCKET"]) if GATEWAY else tmp_path_factory.mktemp("e2e") / "runner.sock"


@pytest.fixture(scope="session")
def session_runner(
    version: str, socket_path: Path, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[RunnerProcess]:
    # Only here must a runner be told what it talks to: to find out costs it a response (docs/settings.md).
    told = ["--gateway-version", version] if (2, 14, 1) <= number(version) < (3,) else []
    with RunnerProcess(socket_path, tmp_path_factory.mktemp("runner") / "log", arguments=told) as runner:
        pytestconfig.stash[RUNNER] = runner
        yield runner


@pytest.fixture(scope="session")
def site(
    version: str,
    socket_path: Path,
    session_upstream: Upstream,
    session_runner: RunnerProcess,
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> Iterator[Site]:
    """The gateway with every test's route."""
    plugins = pytestconfig.stash[ROUTES][version]
    if GATEWAY:
        site = Site(GATEWAY, Path(os.environ["E2E_ROUTES"]), session_upstream, UPSTREAM_HOST)
        site.publish(plugins)
        yield site
    else:
        file = tmp_path_factory.mktemp("routes") / "apisix.yaml"
        with embedded(version, socket_path, file) as url:
            site = Site(url, file, session_upstream, UPSTREAM_HOST)
            site.publish(plugins)
            yield site


@pytest.fixture
def client(request: pytest.FixtureRequest, site: Site, session_runner: RunnerProcess) -> Client:
    """Asks the test's own route."""
    request.node.stash[LOGGED] = len(session_runner.text())
    return Client(site.url, request.node.stash[HOST])


@pytest.fixture
def runner(session_runner: RunnerProcess) -> RunnerProcess:
    """The runner process."""
    return session_runner


@pytest.fixture
def upstream(session_upstream: Upstream, site: Site) -> Upstream:
    """The upstream, with nothing seen."""
    session_upstream.reset()
    return session_upstream
