"""What authors and operators read when a plugin goes wrong."""

import pytest

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base
from apisix.runner.plugin.errors import ConfError, LoadError, PluginFailure, own_traceback, told
from tests.http import given as http
from tests.plugin import given


class Unprintable(Exception):
    def __str__(self) -> str:
        raise LookupError


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_each_error_is_one_line_that_says_where_and_what() -> None:
    assert str(LoadError("plugins/auth.py:7", "does not import")) == "plugins/auth.py:7: does not import"
    assert str(ConfError("auth", "unknown plugin")) == "plugin 'auth': unknown plugin"
    failure = PluginFailure("auth", "plugins/auth.py", LookupError("no user"))
    assert str(failure) == "plugin 'auth' failed: LookupError: no user"


def test_an_exception_is_told_whatever_its_author_made_of_it() -> None:
    assert told(LookupError("no user")) == "LookupError: no user"
    assert told(SystemExit()) == "SystemExit: "
    assert told(Unprintable()) == "Unprintable (its text cannot be had: LookupError)"
    assert "Unprintable" in str(PluginFailure("auth", "", Unprintable()))
    assert "Unprintable" in own_traceback(raised(Unprintable()), __file__)


def test_a_traceback_begins_in_the_plugins_file() -> None:
    class Fails(Base):
        def filter(self, request: Request, response: Response) -> None:
            self.deeper()

        def deeper(self) -> None:
            raise LookupError("no user")

    with pytest.raises(PluginFailure) as failure:
        given.run(given.chain(Fails))
    text = failure.value.traceback()
    lines = text.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].startswith(f'  File "{__file__}"')
    assert lines[1].endswith(" in filter")
    assert lines[-1] == "LookupError: no user"
    assert "chain.py" not in text


def test_a_traceback_without_the_plugins_file_leaves_the_runners_frames_out() -> None:
    def fails(self: Base, request: Request, response: Response) -> None:
        raise LookupError("no user")

    with pytest.raises(PluginFailure) as failure:
        given.run(given.chain(given.plugin(fails)))
    text = own_traceback(failure.value.cause, "nowhere.py")
    assert "chain.py" not in text
    assert f'  File "{__file__}"' in text


def test_a_traceback_of_the_runner_alone_is_its_last_line() -> None:
    class Elsewhere(Base):
        def filter_response(self, request: Request, response: Response) -> None: ...

    with pytest.raises(PluginFailure) as failure:
        given.run(given.chain(Elsewhere))
    assert failure.value.traceback() == (
        "NotImplementedError: Elsewhere has no filter: it does not run in the request phase"
    )


def test_an_exception_that_was_never_raised_is_its_last_line() -> None:
    assert own_traceback(LookupError("no user"), __file__) == "LookupError: no user"


def test_the_cause_of_an_exception_is_part_of_it() -> None:
    def fails(self: Base, request: Request, response: Response) -> None:
        try:
            request.headers["user"]
        except KeyError as error:
            raise LookupError("no user") from error

    with pytest.raises(PluginFailure) as failure:
        given.run(given.chain(given.plugin(fails)))
    text = failure.value.traceback()
    assert "KeyError: 'user'" in text
    assert text.endswith("LookupError: no user")


def test_the_values_of_variables_are_not_in_a_traceback() -> None:
    def fails(self: Base, request: Request, response: Response) -> None:
        token = request.headers["authorization"]
        raise LookupError(len(token))

    with pytest.raises(PluginFailure) as failure:
        given.run(given.chain(given.plugin(fails)), http.request(headers=[("authorization", "s3cret")]))
    assert "s3cret" not in failure.value.traceback()
