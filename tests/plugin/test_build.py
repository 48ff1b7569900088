"""From a conf to its plugins: created, given their conf, set up; and torn down where one of them cannot be."""

import logging
from typing import Any

import msgspec
import pytest

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base
from apisix.runner.plugin.chain import build_plugins, tear_down
from apisix.runner.plugin.errors import ConfError
from tests.plugin import given


class Recorder(Base):
    """Records what happens to its instances."""

    log: given.Log = []  # noqa: RUF012 - one for all instances is what it is for

    def setup(self) -> None:
        self.log.append(f"setup {self.config}")

    def teardown(self) -> None:
        self.log.append(f"teardown {self.config}")

    def filter(self, request: Request, response: Response) -> None: ...


class Wrong(Recorder):
    """Fails in the way of its conf."""

    def setup(self) -> None:
        match self.config:
            case "raises":
                raise LookupError("no table")
            case "exits":
                raise SystemExit(1)
            case "exit in teardown" | "raise in teardown":
                pass
            case {"timeout": timeout}:
                self.timeout = timeout  # type: ignore[misc]

    def teardown(self) -> None:
        super().teardown()
        if self.config == "raise in teardown":
            raise LookupError("no table")
        if self.config == "exit in teardown":
            raise SystemExit(1)


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch) -> given.Log:
    """What happened in this test."""
    happened: given.Log = []
    monkeypatch.setattr(Recorder, "log", happened)
    return happened


def test_each_plugin_of_a_conf_is_an_instance_with_its_conf_set_up_once(log: given.Log) -> None:
    registry = given.registry(Recorder)
    plugins = build_plugins([("recorder", "1"), ("Recorder", '{"a": 2}')], registry)
    assert [(name, definition.name, instance.config) for name, definition, instance in plugins] == [
        ("recorder", "Recorder", 1),
        ("Recorder", "Recorder", {"a": 2}),
    ]
    assert log == ["setup 1", "setup {'a': 2}"]


def test_a_conf_without_plugins_has_none() -> None:
    assert build_plugins([], given.registry()) == []


def test_an_absent_value_is_an_empty_one() -> None:
    ((_, _, instance),) = build_plugins([("recorder", None)], given.registry(Recorder))
    assert instance.config == ""


def test_a_typed_conf_is_there_in_setup() -> None:
    class Typed(Base):
        class Conf(msgspec.Struct):
            rate: int = 5

        config: Conf

        def setup(self) -> None:
            self.double = 2 * self.config.rate

        def filter(self, request: Request, response: Response) -> None: ...

    ((_, _, instance),) = build_plugins([("typed", '{"rate": 7}')], given.registry(Typed))
    assert isinstance(instance, Typed)
    assert instance.double == 14


@pytest.mark.parametrize(
    ("conf", "told"),
    [
        (("unknown", "1"), "plugin 'unknown': unknown plugin, loaded are: Recorder, Wrong"),
        (("wrong", "raises"), "plugin 'wrong': setup failed: LookupError: no table"),
        (("wrong", "exits"), "plugin 'wrong': setup failed: SystemExit: 1"),
        (("wrong", '{"timeout": "5"}'), "plugin 'wrong': plugin class Wrong: timeout must be a number of seconds"),
        (("wrong", '{"timeout": 0}'), "plugin 'wrong': plugin class Wrong: timeout must be a number of seconds"),
    ],
)
def test_where_one_plugin_cannot_be_had_those_before_it_are_torn_down(
    log: given.Log, conf: tuple[str, str], told: str
) -> None:
    with pytest.raises(ConfError) as error:
        build_plugins([("recorder", "1"), ("recorder", "2"), conf, ("recorder", "3")], given.registry(Recorder, Wrong))
    assert str(error.value).startswith(told)
    assert log[:2] == ["setup 1", "setup 2"]
    assert log[-2:] == ["teardown 1", "teardown 2"]
    assert "setup 3" not in log


def test_a_plugin_that_was_set_up_and_then_refused_is_torn_down(log: given.Log) -> None:
    with pytest.raises(ConfError):
        build_plugins([("wrong", '{"timeout": "5"}')], given.registry(Wrong))
    assert log == ["teardown {'timeout': '5'}"]


def test_a_conf_that_does_not_fit_creates_nothing(log: given.Log) -> None:
    class Strict(Recorder):
        class Conf(msgspec.Struct):
            rate: int

    with pytest.raises(ConfError, match=r"plugin 'strict': conf \$\.rate: expected int, got str"):
        build_plugins([("strict", '{"rate": "many"}')], given.registry(Strict))
    assert log == []


def test_an_init_that_fails_for_one_conf_only_is_told(log: given.Log) -> None:
    class Once(Recorder):
        created = 0

        def __init__(self) -> None:
            type(self).created += 1
            if self.created > 1:
                raise LookupError("only one")

    registry = given.registry(Once)
    with pytest.raises(ConfError, match="plugin class Once: __init__ failed: LookupError: only one"):
        build_plugins([("once", "")], registry)


def test_a_config_that_cannot_be_set_is_told() -> None:
    class Fixed(Base):
        @property
        def config(self) -> Any:
            return 5

        def filter(self, request: Request, response: Response) -> None: ...

    with pytest.raises(ConfError, match="plugin 'fixed': setup failed: AttributeError: property 'config'"):
        build_plugins([("fixed", "")], given.registry(Fixed))


def test_a_setup_that_fails_is_logged_with_its_own_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfError):
        build_plugins([("wrong", "raises")], given.registry(Wrong))
    (record,) = caplog.records
    lines = record.getMessage().splitlines()
    assert record.levelno == logging.ERROR
    assert lines[0] == "plugin 'wrong': setup failed"
    assert lines[2].startswith(f'  File "{__file__}", line ')
    assert lines[-1] == "LookupError: no table"


def test_a_teardown_that_fails_is_logged_and_the_others_are_called(
    log: given.Log, caplog: pytest.LogCaptureFixture
) -> None:
    conf = [("wrong", "raise in teardown"), ("wrong", "exit in teardown"), ("recorder", "1")]
    tear_down(build_plugins(conf, given.registry(Wrong, Recorder)))
    assert log[-3:] == ["teardown raise in teardown", "teardown exit in teardown", "teardown 1"]
    assert [record.getMessage().splitlines()[0] for record in caplog.records] == ["plugin 'wrong': teardown failed"] * 2
