"""The registry: what is checked when a plugin is loaded, and what a route's name for one means."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base
from apisix.runner.plugin.errors import ConfError, LoadError
from apisix.runner.plugin.registry import REQUEST, RESPONSE, Definition, Registry


class GoesOn(Base):
    def filter(self, request: Request, response: Response) -> None: ...


def made(**members: Any) -> type[Base]:
    """A class of one proper method and what is given."""
    return type("Plugin", (GoesOn,), members)


def refused(plugin_class: type[Base]) -> str:
    """The problem of a class, without what every problem says."""
    with pytest.raises(LoadError) as error:
        Definition(plugin_class, "plugins/it.py")
    start = f"plugin class {plugin_class.__name__}: "
    assert error.value.origin == "plugins/it.py"
    assert str(error.value) == f"plugins/it.py: {error.value.problem}"
    assert error.value.problem.startswith(start)
    return error.value.problem.removeprefix(start)


def registered(*definitions: Definition) -> Registry:
    registry = Registry()
    for definition in definitions:
        registry.add(definition)
    return registry


# Phases.


def test_phases_are_those_of_the_methods_a_class_has() -> None:
    class Both(GoesOn):
        async def filter_response(self, request: Request, response: Response) -> None: ...

    definition = Definition(Both, "")
    assert definition.phases == {REQUEST, RESPONSE}
    assert definition.coroutine == {RESPONSE}
    assert Definition(GoesOn, "").phases == {REQUEST}
    assert Definition(GoesOn, "").coroutine == frozenset()


def test_a_class_without_any_phase_is_refused() -> None:
    class Bare(Base):
        def filters(self, request: Request, response: Response) -> None: ...

    told = "has neither filter(self, request, response) nor filter_response(self, request, response)"
    assert refused(Bare) == told


# Signatures.


@pytest.mark.parametrize(
    ("function", "shown"),
    [
        (lambda self: None, "(self)"),
        (lambda self, request: None, "(self, request)"),
        (lambda self, conf, request, response: None, "(self, conf, request, response)"),
        (lambda self, request, response, *, extra: None, "(self, request, response, *, extra)"),
        (staticmethod(lambda request, response: None), "(request, response)"),
        (classmethod(lambda cls, request, response: None), "(request, response)"),
    ],
)
@pytest.mark.parametrize("method", ["filter", "filter_response"])
def test_a_method_takes_a_request_and_a_response(method: str, function: Any, shown: str) -> None:
    told = f"expected {method}(self, request, response), got {method}{shown}"
    assert refused(made(**{method: function})) == told


def test_a_generator_is_no_filter() -> None:
    def yields(self: Base, request: Request, response: Response) -> Any:
        yield

    async def yields_async(self: Base, request: Request, response: Response) -> Any:
        yield

    for function in (yields, yields_async):
        assert refused(made(filter=function)) == "filter is a generator, which nobody would run; take its yield out"


@pytest.mark.parametrize("value", [None, "text", 5])
def test_a_method_that_is_none_is_refused(value: object) -> None:
    assert refused(made(filter=value)) == f"expected filter(self, request, response), got filter = {value!r}"


@pytest.mark.parametrize(
    "function",
    [
        lambda self, request, response: None,
        lambda self, req, resp, debug=False: None,
        lambda self, *args: None,
        lambda *args, **more: None,
        lambda self, request, response=None: None,
    ],
)
def test_any_method_that_can_be_called_so_will_do(function: Callable[..., None]) -> None:
    assert Definition(made(filter=function), "").phases == {REQUEST}


def test_a_coroutine_is_one_decorated_or_inherited() -> None:
    def decorated(function: Any) -> Any:
        @functools.wraps(function)
        async def wrapper(*args: Any) -> None:
            await function(*args)

        return wrapper

    async def filter(self: Base, request: Request, response: Response) -> None: ...

    assert Definition(made(filter=decorated(filter)), "").coroutine == {REQUEST}
    assert Definition(type("Derived", (made(filter=filter),), {}), "").coroutine == {REQUEST}


@pytest.mark.parametrize("method", ["setup", "teardown"])
def test_setup_and_teardown_that_nobody_would_await_are_refused(method: str) -> None:
    async def coroutine(self: Base) -> None: ...

    assert refused(made(**{method: coroutine})) == f"{method} must be def, got async def: nobody would await it"


# Declarations.


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ({"on_error": "Continue"}, "on_error must be 'fail' or 'continue', got 'Continue'"),
        ({"on_error": None}, "on_error must be 'fail' or 'continue', got None"),
        ({"blocking": "yes"}, "blocking must be True, False or None, got 'yes'"),
        ({"variables": "uri"}, "variables must be a list or tuple of names, got 'uri'"),
        ({"variables": None}, "variables must be a list or tuple of names, got None"),
        ({"variables": 5}, "variables must be a list or tuple of names, got 5"),
        ({"variables": ["uri", None]}, "variables must be a list or tuple of names, got ['uri', None]"),
        ({"variables": [""]}, "variables must be a list or tuple of names, got ['']"),
        ({"timeout": "5"}, "timeout must be a number of seconds above 0 or None, got '5'"),
        ({"timeout": 0}, "timeout must be a number of seconds above 0 or None, got 0"),
        ({"timeout": -1.5}, "timeout must be a number of seconds above 0 or None, got -1.5"),
        ({"timeout": True}, "timeout must be a number of seconds above 0 or None, got True"),
        ({"timeout": float("nan")}, "timeout must be a number of seconds above 0 or None, got nan"),
        ({"timeout": float("inf")}, "timeout must be a number of seconds above 0 or None, got inf"),
    ],
)
def test_a_declaration_that_means_nothing_is_refused(declared: dict[str, Any], told: str) -> None:
    assert refused(made(**declared)) == told


@pytest.mark.parametrize(
    "declared",
    [
        {"on_error": "continue", "blocking": True, "timeout": 0.5, "variables": ("uri",)},
        {"on_error": "fail", "blocking": False, "timeout": 5, "variables": []},
    ],
)
def test_declarations_that_mean_something_are_taken(declared: dict[str, Any]) -> None:
    assert Definition(made(**declared), "").name == "Plugin"


def test_a_conf_is_one_of_four_kinds_of_classes() -> None:
    told = "Conf must be a msgspec.Struct, a dataclass, a TypedDict or a pydantic model, got <class 'dict'>"
    assert refused(made(Conf=dict)) == told


def test_a_conf_that_cannot_be_read_is_refused() -> None:
    class Conf(msgspec.Struct):
        rate: "Nowhere"  # type: ignore[name-defined]  # noqa: F821

    assert refused(made(Conf=Conf)) == "Conf cannot be used: NameError: name 'Nowhere' is not defined"


def test_a_conf_is_inherited() -> None:
    class Conf(msgspec.Struct):
        rate: int = 1

    assert Definition(type("Derived", (made(Conf=Conf),), {}), "").conf_type is Conf
    assert Definition(GoesOn, "").conf_type is None


# Names.


def test_a_plugin_is_named_by_its_attribute_else_its_init_else_its_class() -> None:
    class ByInit(GoesOn):
        def __init__(self) -> None:
            super().__init__("from-init")

    class ByInitOfItsClass(GoesOn):
        def __init__(self) -> None:
            super().__init__(self.__class__.__name__)

    class Quiet(GoesOn):
        def __init__(self) -> None:
            self.ready = True

    assert Definition(made(name="own"), "").name == "own"
    assert Definition(type("Both", (ByInit,), {"name": "own"}), "").name == "own"
    assert Definition(ByInit, "").name == "from-init"
    assert Definition(ByInitOfItsClass, "").name == "ByInitOfItsClass"
    assert Definition(Quiet, "").name == "Quiet"
    assert Definition(GoesOn, "").name == "GoesOn"


@pytest.mark.parametrize("name", [5, "___", ["stop"], property(lambda self: "stop"), lambda self: "stop"])
def test_a_name_is_text_with_something_in_it(name: Any) -> None:
    assert refused(made(name=name)).startswith("a plugin's name must be text, got ")


@pytest.mark.parametrize("name", ["rate limit", " stop", "stop\n", "st\x00op"])
def test_a_name_has_no_spaces(name: str) -> None:
    assert refused(made(name=name)) == f"a plugin's name must be without spaces, got {name!r}; use - or _"


@pytest.mark.parametrize("name", ["limit-count", "limit.count", "größe", "2fa"])
def test_other_letters_are_fine(name: str) -> None:
    assert Definition(made(name=name), "").name == name


def test_a_problem_is_told_with_the_line_of_what_is_wrong() -> None:
    class Wrong(GoesOn):
        on_error = "never"  # type: ignore[assignment]

        async def teardown(self) -> None: ...  # type: ignore[override]

    with pytest.raises(LoadError) as error:
        Definition(Wrong, __file__)
    assert error.value.origin == f"{__file__}:{Wrong.teardown.__code__.co_firstlineno}"
    del Wrong.teardown
    with pytest.raises(LoadError) as error:
        Definition(Wrong, __file__)
    assert error.value.origin == f"{__file__}:{inspect.getsourcelines(Wrong)[1]}"


@pytest.mark.parametrize("error", [LookupError("no table"), SystemExit(1)])
def test_an_init_that_fails_is_told(error: BaseException) -> None:
    def fails(self: Base) -> None:
        raise error

    told = f"__init__ failed: {type(error).__name__}: {error}; it is called without arguments"
    assert refused(made(__init__=fails)) == told


def test_an_init_that_wants_arguments_is_told_that_there_are_none() -> None:
    def wants(self: Base, config: object) -> None: ...

    told = refused(made(__init__=wants))
    assert "missing 1 required positional argument: 'config'; it is called without arguments" in told


@pytest.mark.parametrize("route", ["GoesOn", "goes_on", "goeson", "GOES_ON", "_g_o_e_s_on_"])
def test_names_match_without_case_and_underscores(route: str) -> None:
    assert registered(Definition(GoesOn, "")).find(route).plugin_class is GoesOn


@pytest.mark.parametrize("route", ["goes-on", "goes on", "goes_on2", "", "_"])
def test_nothing_else_matches(route: str) -> None:
    with pytest.raises(ConfError) as error:
        registered(Definition(GoesOn, "")).find(route)
    assert error.value.plugin == route


# What is not there.


def test_an_unknown_plugin_is_told_with_those_that_are_there_and_the_closest() -> None:
    registry = registered(Definition(GoesOn, ""), Definition(made(name="limit-count"), ""))
    with pytest.raises(ConfError) as error:
        registry.find("limit_cuont")
    told = "unknown plugin, loaded are: GoesOn, limit-count; did you mean 'limit-count'?"
    assert str(error.value) == f"plugin 'limit_cuont': {told}"


def test_an_unknown_plugin_that_is_close_to_none_has_no_hint() -> None:
    with pytest.raises(ConfError) as error:
        registered(Definition(GoesOn, "")).find("authenticate")
    assert error.value.problem == "unknown plugin, loaded are: GoesOn"


def test_without_any_plugin_that_is_told() -> None:
    with pytest.raises(ConfError) as error:
        Registry().find("stop")
    assert error.value.problem == "unknown plugin, loaded are: none"


def test_files_that_did_not_load_are_told_with_an_unknown_plugin() -> None:
    registry = registered(Definition(GoesOn, ""))
    registry.problems.append(LoadError("plugins/auth.py:7", "does not import"))
    with pytest.raises(ConfError) as error:
        registry.find("auth")
    told = "unknown plugin, loaded are: GoesOn; these files did not load: plugins/auth.py:7"
    assert error.value.problem == told


# Duplicates.


def test_two_plugins_of_one_name_are_both_refused_with_both_files() -> None:
    registry = registered(Definition(GoesOn, "a.py"), Definition(made(name="goes_on"), "b.py"))
    assert registry.definitions() == []
    (problem,) = registry.problems
    assert str(problem) == "b.py: plugin 'goes_on' is defined in a.py and b.py; rename one"
    with pytest.raises(ConfError) as error:
        registry.find("goeson")
    assert error.value.problem == "is defined in a.py and b.py; rename one"


def test_a_third_one_does_not_slip_in() -> None:
    registry = registered(*(Definition(GoesOn, origin) for origin in ("a.py", "b.py", "c.py")))
    with pytest.raises(ConfError) as error:
        registry.find("goes_on")
    assert error.value.problem == "is defined in a.py and b.py and c.py; rename one"
    assert [problem.origin for problem in registry.problems] == ["b.py", "c.py"]


def test_plugins_are_listed_by_name() -> None:
    registry = registered(*(Definition(made(name=name), "") for name in ("b", "C", "a")))
    assert [definition.name for definition in registry.definitions()] == ["a", "b", "C"]


def test_each_conf_gets_an_instance_of_its_own() -> None:
    definition = Definition(GoesOn, "")
    assert definition.create() is not definition.create()
