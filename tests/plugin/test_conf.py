"""A conf's value: what `self.config` is, and errors that say path, expected and got, and never the value."""

import dataclasses
import enum
from typing import Annotated, Any, Literal, Required, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from apisix.runner.plugin.conf import conf_type_problem, is_conf_type, json_schema, parse_conf
from apisix.runner.plugin.errors import ConfError

SECRET = "s3cret"
OTHER_VALUE = "expected one of the values that Conf names, got another one"


class Mode(enum.Enum):
    FAST = "fast"


class Struct(msgspec.Struct):
    rate: int
    unit: str = "second"
    names: list[str] = []
    mode: Mode = Mode.FAST
    kind: Literal["a", "b"] = "a"
    burst: Annotated[int, msgspec.Meta(ge=1)] = 1


@dataclasses.dataclass
class Dataclass:
    rate: int
    unit: str = "second"
    names: list[str] = dataclasses.field(default_factory=list)


class Typed(TypedDict, total=False):
    rate: Required[int]
    unit: str
    names: list[str]


class Model(pydantic.BaseModel):
    rate: int
    unit: str = "second"
    names: list[str] = []
    mode: Mode = Mode.FAST
    kind: Literal["a", "b"] = "a"
    burst: int = pydantic.Field(default=1, ge=1)


def problem(value: str, conf_type: type | None) -> str:
    """The error's text, checked not to hold the secret."""
    with pytest.raises(ConfError) as error:
        parse_conf("limit", value, conf_type)
    assert error.value.plugin == "limit"
    assert str(error.value) == f"plugin 'limit': {error.value.problem}"
    assert SECRET not in str(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None, "the log shows no value by the way"
    return error.value.problem


# Without Conf.


@pytest.mark.parametrize(
    ("value", "config"),
    [
        ('{"body":"hello"}', {"body": "hello"}),
        ("[1, 2]", [1, 2]),
        ("5", 5),
        ('"text"', "text"),
        ("null", None),
        ("plain text", "plain text"),
        ("", ""),
        ("{broken", "{broken"),
        ("caf\udce9", "caf\udce9"),
        ('"\udcff"', '"\udcff"'),
    ],
)
def test_without_conf_a_value_is_its_json_or_the_text_itself(value: str, config: object) -> None:
    assert parse_conf("any", value, None) == config


@for_all(st.text(alphabet=st.characters(codec="utf-8") | st.sampled_from([chr(0xDC80), chr(0xDCFF)])))
def test_without_conf_any_value_can_be_prepared(value: str) -> None:
    parse_conf("any", value, None)


@pytest.mark.parametrize("conf_type", [None, Struct, Model])
def test_json_that_is_nested_too_deeply_is_refused(conf_type: type | None) -> None:
    problem('{"rate": ' + "[" * 100_000, conf_type)


# With Conf.


@pytest.mark.parametrize("conf_type", [Struct, Dataclass, Typed, Model])
def test_a_conf_is_an_instance_with_defaults_applied(conf_type: type) -> None:
    config = parse_conf("limit", '{"rate": 5, "names": ["a"]}', conf_type)
    if conf_type is Typed:
        assert config == {"rate": 5, "names": ["a"]}
    else:
        assert isinstance(config, conf_type)
        assert (config.rate, config.unit, config.names) == (5, "second", ["a"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("conf_type", [Struct, Dataclass, Model])
def test_defaults_are_not_shared_between_confs(conf_type: type) -> None:
    one, other = (parse_conf("limit", '{"rate": 5}', conf_type) for _ in range(2))
    one.names.append("a")
    assert other.names == []


def test_an_empty_value_is_an_empty_object() -> None:
    class Defaults(msgspec.Struct):
        rate: int = 1

    class ModelDefaults(pydantic.BaseModel):
        rate: int = 1

    assert parse_conf("limit", "", Defaults) == Defaults()
    assert parse_conf("limit", "", ModelDefaults) == ModelDefaults()


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (f'{{"rate": "{SECRET}"}}', "conf $.rate: expected int, got str"),
        (f'{{"rate": 1, "names": [1, "{SECRET}"]}}', "conf $.names[0]: expected str, got int"),
        (f'{{"unit": "{SECRET}"}}', "conf $: object missing required field rate"),
        ("[]", "conf $: expected object, got array"),
        ("5", "conf $: expected object, got int"),
    ],
)
@pytest.mark.parametrize("conf_type", [Struct, Dataclass, Typed])
def test_what_does_not_fit_is_told_with_path_expected_and_got(conf_type: type, value: str, told: str) -> None:
    assert problem(value, conf_type) == told


@pytest.mark.parametrize("value", [SECRET, f'{{"rate": 1, "unit": "{SECRET}"', f'{{"unit": "{SECRET}\udcff"}}'])
@pytest.mark.parametrize("conf_type", [Struct, Dataclass, Typed])
def test_what_is_not_json_is_told_as_that(conf_type: type, value: str) -> None:
    assert problem(value, conf_type).startswith("conf $: expected a JSON object, got text that is not JSON (")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ('{"rate": 1, "burst": 0}', "conf $.burst: expected int >= 1"),
        (f'{{"rate": 1, "mode": "{SECRET}"}}', f"conf $.mode: {OTHER_VALUE}"),
        (f'{{"rate": 1, "kind": "{SECRET} - at `$.x`"}}', f"conf $.kind: {OTHER_VALUE}"),
    ],
)
def test_constraints_are_told_and_the_value_is_not(value: str, told: str) -> None:
    assert problem(value, Struct) == told


def test_a_tag_that_is_unknown_is_not_told() -> None:
    class One(msgspec.Struct, tag="one"):
        pass

    class Two(msgspec.Struct, tag="two"):
        pass

    class Tagged(msgspec.Struct):
        way: One | Two

    assert problem(f'{{"way": {{"type": "{SECRET}"}}}}', Tagged) == f"conf $.way.type: {OTHER_VALUE}"


def test_an_unknown_field_is_told_where_the_author_forbids_them() -> None:
    class Strict(msgspec.Struct, forbid_unknown_fields=True):
        rate: int = 1

    assert problem(f'{{"rat": "{SECRET}"}}', Strict) == "conf $: object contains unknown field rat"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (
            f'{{"rate": "{SECRET}", "names": ["a", 5]}}',
            "conf $.rate: input should be a valid integer, unable to parse string as an integer, got str; "
            "$.names[1]: input should be a valid string, got int",
        ),
        ("{}", "conf $.rate: field required"),
        ("[]", "conf $: input should be an object, got list"),
        ('{"rate": 1, "burst": 0}', "conf $.burst: input should be greater than or equal to 1, got int"),
        (f'{{"rate": 1, "mode": "{SECRET}"}}', "conf $.mode: input should be 'fast', got str"),
        (f'{{"rate": 1, "kind": "{SECRET}"}}', "conf $.kind: input should be 'a' or 'b', got str"),
    ],
)
def test_a_pydantic_model_tells_everything_that_does_not_fit(value: str, told: str) -> None:
    assert problem(value, Model) == told


def test_a_pydantic_model_tells_what_is_not_json() -> None:
    assert problem(SECRET, Model).startswith("conf $: invalid JSON: expected value at line 1 column 1")


def test_a_pydantic_tag_that_is_unknown_is_not_told() -> None:
    class One(pydantic.BaseModel):
        kind: Literal["one"]

    class Two(pydantic.BaseModel):
        kind: Literal["two"]

    class Tagged(pydantic.BaseModel):
        way: One | Two = pydantic.Field(discriminator="kind")

    told = "conf $.way: expected one of the tags 'one', 'two', got another one"
    assert problem(f'{{"way": {{"kind": "{SECRET}"}}}}', Tagged) == told


class BadStruct(msgspec.Struct):
    rate: int = 1

    def __post_init__(self) -> None:
        if self.rate == 1:
            raise ValueError("rate must not be 1")
        raise KeyError("rates")


class BadModel(pydantic.BaseModel):
    rate: int = 1

    @pydantic.field_validator("rate", mode="before")
    @classmethod
    def check(cls, rate: int) -> int:
        if rate == 1:
            raise ValueError("rate must not be 1")
        raise KeyError("rates")


@pytest.mark.parametrize(
    ("conf_type", "value", "told"),
    [
        (BadStruct, '{"rate": 1}', "conf $: rate must not be 1"),
        (BadStruct, '{"rate": 2}', "conf $: KeyError: 'rates'"),
        (BadModel, '{"rate": 1}', "conf $.rate: value error, rate must not be 1"),
        (BadModel, '{"rate": 2}', "conf $: KeyError: 'rates'"),
    ],
)
def test_checks_of_the_authors_own_are_told_whatever_they_raise(conf_type: type, value: str, told: str) -> None:
    assert problem(value, conf_type) == told


# What can be a Conf.


@pytest.mark.parametrize("conf_type", [Struct, Dataclass, Typed, Model])
def test_four_kinds_of_classes_can_be_a_conf(conf_type: type) -> None:
    assert is_conf_type(conf_type)
    assert conf_type_problem(conf_type) == ""


@pytest.mark.parametrize("conf_type", [dict, int, object, Mode, dict[str, int], {"rate": 5}, "Conf", None, Struct(1)])
def test_others_can_not(conf_type: Any) -> None:
    assert not is_conf_type(conf_type)


def test_a_dataclass_of_pydantics_can_not_since_its_checks_would_not_run() -> None:
    @pydantic.dataclasses.dataclass
    class Checked:
        rate: int = pydantic.Field(ge=1)

    assert not is_conf_type(Checked)


def test_a_type_that_cannot_be_found_is_a_problem_of_the_class() -> None:
    class Lost(msgspec.Struct):
        rate: "Nowhere"  # type: ignore[name-defined]  # noqa: F821

    assert conf_type_problem(Lost) == "NameError: name 'Nowhere' is not defined"


# Its schema.


@pytest.mark.parametrize("conf_type", [Struct, Dataclass, Typed, Model])
def test_the_schema_of_a_conf_can_be_had(conf_type: type) -> None:
    schema = json_schema(conf_type)
    name = conf_type.__name__
    properties = (schema if "properties" in schema else schema["$defs"][name])["properties"]
    assert properties["rate"]["type"] == "integer"
    assert properties["names"]["items"]["type"] == "string"


def test_without_conf_the_schema_admits_anything() -> None:
    assert json_schema(None) == {}
