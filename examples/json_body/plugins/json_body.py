"""Lets in only JSON bodies that fit a JSON Schema, and changes them for the upstream.

- What is not surely JSON that fits is refused: another content type, a compressed body, bytes that are not UTF-8, a
  name that stands twice in an object, NaN, too many bytes, too many levels.
- The schema is about what the client sends; then members are dropped, renamed, and set where they are missing.
- A body that nothing changes goes on byte for byte.
"""

import json
import math
from collections.abc import Iterator
from copy import deepcopy
from itertools import islice
from typing import Annotated, Any

import msgspec
from jsonschema import SchemaError, ValidationError, validators
from jsonschema.protocols import Validator
from jsonschema.validators import Draft202012Validator
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base

TITLES = {400: "Bad Request", 413: "Content Too Large", 415: "Unsupported Media Type", 422: "Unprocessable Content"}
MAPS_OF_SCHEMAS = ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")
LONGEST_DETAIL = 200  # characters; details quote what the client sent


class JsonBody(Base):
    class Conf(msgspec.Struct, forbid_unknown_fields=True):
        schema: dict[str, Any]  # JSON Schema, 2020-12 unless its $schema says otherwise
        max_bytes: Annotated[int, msgspec.Meta(ge=2, le=8 << 20)] = 65_536
        max_depth: Annotated[int, msgspec.Meta(ge=1, le=64)] = 16
        max_errors: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10
        drop: list[str] = []  # JSON pointers of members
        rename: dict[str, str] = {}  # JSON pointer of a member: its new name
        defaults: dict[str, Any] = {}  # JSON pointer of a member: its value where it is missing

        def __post_init__(self) -> None:
            compiled(self.schema)
            for field in ("drop", "rename", "defaults"):
                for pointer in getattr(self, field):
                    segments(field, pointer)

    config: Conf

    def setup(self) -> None:
        self.validator = compiled(self.config.schema)
        self.drop = [segments("drop", pointer) for pointer in self.config.drop]
        self.rename = [(segments("rename", pointer), name) for pointer, name in self.config.rename.items()]
        self.defaults = [(segments("defaults", pointer), value) for pointer, value in self.config.defaults.items()]

    def filter(self, request: Request, response: Response) -> None:
        try:
            document = self.checked(request)
            if self.transform(document):
                request.body = json.dumps(document, separators=(",", ":"))
        except Refused as refused:
            self.stop(refused.status, refused.problem(), headers={"Content-Type": "application/problem+json"})

    def checked(self, request: Request) -> Any:
        """The body's document, once it is known to fit."""
        check_type(request)
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.config.max_bytes:
            raise Refused(413, f"expected at most {self.config.max_bytes} bytes, got {length}")
        body = request.body or b""
        if len(body) > self.config.max_bytes:  # without a Content-Length it is known only now
            raise Refused(413, f"expected at most {self.config.max_bytes} bytes, got {len(body)}")
        document = decoded(body)
        if deeper_than(document, self.config.max_depth):
            raise Refused(400, f"expected at most {self.config.max_depth} levels of objects and arrays, got more")
        errors = list(islice(self.validator.iter_errors(document), self.config.max_errors))
        if errors:
            fields = [(pointer_of(error.absolute_path), error.message) for error in errors]
            raise Refused(422, "the body does not fit", fields)
        return document

    def transform(self, document: Any) -> bool:
        """Drop, rename, set defaults. Returns whether anything changed."""
        changed = False
        for *way, name in self.drop:
            parent = follow(document, way)
            if parent is not None and name in parent:
                del parent[name]
                changed = True
        for (*way, name), new_name in self.rename:
            parent = follow(document, way)
            if parent is not None and name in parent:
                if new_name in parent:
                    raise Refused(422, "the body does not fit", [(pointer_of([*way, new_name]), "stands twice")])
                parent[new_name] = parent.pop(name)
                changed = True
        for (*way, name), value in self.defaults:
            parent = follow(document, way)
            if parent is not None and name not in parent:
                parent[name] = deepcopy(value)  # the conf's own belongs to all calls
                changed = True
        return changed


class Refused(Exception):
    """What the client is told instead, as a problem of RFC 9457."""

    def __init__(self, status: int, detail: str, fields: list[tuple[str, str]] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.fields = status, detail, fields or []

    def problem(self) -> dict[str, Any]:
        """The answer's body."""
        errors = [{"pointer": pointer, "detail": shortened(detail)} for pointer, detail in self.fields]
        told = {"title": TITLES[self.status], "status": self.status, "detail": self.detail}
        return {**told, "errors": errors} if errors else told


# What came


def check_type(request: Request) -> None:
    """Refuse what does not say that it is plain JSON in UTF-8."""
    types = request.headers.getall("content-type")
    kind, _, parameters = (types[0] if len(types) == 1 else "").partition(";")
    kind = kind.strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Refused(415, "expected one Content-Type, application/json")
    parameters = parameters.lower().replace(" ", "").replace('"', "")
    if "charset" in parameters and parameters != "charset=utf-8":
        raise Refused(415, "expected JSON in UTF-8, got another charset")
    if "content-encoding" in request.headers:
        raise Refused(415, "expected a body without Content-Encoding")


def decoded(body: bytes) -> Any:
    """The document of a JSON text; stricter than `json.loads`, which takes NaN, and the last of equal names."""
    try:
        return json.loads(body.decode(), object_pairs_hook=object_of, parse_float=number_of, parse_constant=number_of)
    except json.JSONDecodeError as error:
        raise Refused(400, f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except UnicodeDecodeError as error:
        raise Refused(400, f"not JSON: byte {error.start} is not UTF-8") from None
    except RecursionError:
        raise Refused(400, "nested too deeply") from None
    except ValueError:  # an integer of thousands of digits
        raise Refused(400, "not JSON that can be read: a number is too long") from None


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names are different."""
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise Refused(400, f"the name {shortened(json.dumps(name))} stands twice in an object")
        members[name] = value
    return members


def number_of(text: str) -> float:
    """A number that JSON and the upstream can hold."""
    number = float(text)
    if not math.isfinite(number):
        raise Refused(400, f"{shortened(text)} is no number")
    return number


def deeper_than(document: Any, levels: int) -> bool:
    """Whether objects and arrays are nested in more levels. Without recursion: that is what it guards."""
    level = [document]
    for _ in range(levels + 1):
        level = [part for part in level if isinstance(part, dict | list)]
        if not level:
            return False
        level = [inner for part in level for inner in (part.values() if isinstance(part, dict) else part)]
    return True


# The schema


def compiled(schema: dict[str, Any]) -> Validator:
    """A validator. What it could not check is refused here: references elsewhere, formats that it does not know."""
    dialect = validators.validator_for(schema, default=Draft202012Validator)
    named = dialect.META_SCHEMA["$schema"]
    if str(schema.get("$schema", named)).rstrip("#") != named.rstrip("#"):
        raise ValueError("schema: its $schema names a dialect that is not known here")
    try:
        dialect.check_schema(schema)
    except SchemaError as error:
        place = pointer_of(error.absolute_path)
        raise ValueError(f"schema {place}: expected what JSON Schema allows ({error.validator})") from None
    registry: Registry[Any] = Registry()
    resolver = registry.resolver_with_root(Resource.from_contents(schema, default_specification=DRAFT202012))
    for keyword, value in keywords(schema):
        if keyword in ("$ref", "$dynamicRef"):
            try:
                resolver.lookup(value)
            except Unresolvable:
                raise ValueError(f"schema: {keyword} must lead to a place in the schema; nothing is fetched") from None
        if keyword == "format" and value not in dialect.FORMAT_CHECKER.checkers:
            raise ValueError(f"schema: format {value!r} cannot be checked here") from None
    linear: type[Validator] = validators.extend(dialect, {"uniqueItems": unique_items})  # type: ignore[no-untyped-call]
    return linear(schema, registry=registry, format_checker=dialect.FORMAT_CHECKER)


def keywords(schema: Any) -> Iterator[tuple[str, str]]:
    """Every keyword of a schema that has a text."""
    for part in schema if isinstance(schema, list) else ():
        yield from keywords(part)
    for name, value in schema.items() if isinstance(schema, dict) else ():
        if isinstance(value, str):
            yield name, value
        elif name in MAPS_OF_SCHEMAS:  # whose names are no keywords
            yield from keywords(list(value.values()))
        elif name not in ("enum", "const", "default", "examples"):
            yield from keywords(value)


def unique_items(_: Validator, wanted: bool, items: Any, __: object) -> Iterator[Any]:
    """As the keyword says, in linear time: jsonschema's own compares each object with each other one."""
    if wanted and isinstance(items, list) and len({comparable(item) for item in items}) < len(items):
        yield ValidationError("has an item twice")


def comparable(value: Any) -> Any:
    """What is equal and has the same hash where the JSON is equal: 1 and 1.0, but not 1 and true."""
    if isinstance(value, dict):
        return frozenset((name, comparable(member)) for name, member in value.items())
    if isinstance(value, list):
        return tuple(comparable(item) for item in value)
    return ("bool", value) if isinstance(value, bool) else value


# JSON pointers (RFC 6901)


def segments(field: str, pointer: str) -> list[str]:
    """The names on the way to a member."""
    if not pointer.startswith("/"):
        raise ValueError(f"{field}: expected JSON pointers of members, such as /customer/name")
    return [name.replace("~1", "/").replace("~0", "~") for name in pointer[1:].split("/")]


def pointer_of(path: Any) -> str:
    """The pointer of a place, as a URI fragment; # is the whole."""
    return "#" + "".join("/" + str(name).replace("~", "~0").replace("/", "~1") for name in path)


def follow(document: Any, way: list[str]) -> dict[str, Any] | None:
    """The object at a place, None where there is none."""
    for name in way:
        document = document.get(name) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else None


def shortened(text: str) -> str:
    """Text that the client gets back, of bounded length."""
    return text if len(text) <= LONGEST_DETAIL else text[:LONGEST_DETAIL] + "..."
