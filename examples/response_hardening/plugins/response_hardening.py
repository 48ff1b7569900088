"""Hardens what the upstream answers: sets and removes headers, masks card numbers, e-mail addresses and more in bodies.

- Bodies are masked where their type is textual, or not told. Other types are not looked at.
- A body that should be masked and cannot be (compressed, a part of one, too large, an unknown charset, too slow a
  pattern) is refused with a 502; with `when_unmaskable: leave` it is left as it is, and logged.
- In the request phase the upstream is asked for whole bodies that are not compressed.
- JSON stays JSON: a number that is masked becomes a string.
"""

import codecs
import json
import logging
import time
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
import regex

from apisix.runner.http.fields import check_header_name, check_header_value
from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base

log = logging.getLogger("response_hardening")

FRAMING = {"connection", "content-encoding", "content-length", "transfer-encoding"}
OF_THE_OLD_BODY = ("Accept-Ranges", "Content-Digest", "Content-MD5", "Digest", "ETag", "Repr-Digest")
TEXTUAL = regex.compile(r"text/.*|.*[/+](json|xml|javascript|x-ndjson|yaml)|application/x-www-form-urlencoded")
JSON_TOKEN = regex.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?\d[\d.eE+-]*+')
# Possessive (++, *+): what was read is not read again another way, so that the time is linear.
DIGITS = regex.compile(r"(?<!\d)(?<!\d\.)\d++(?:[ -]\d++)*+")  # not the digits after a point
EMAIL = regex.compile(r"(?<![\w.%+-])[\w.%+-]++@[\w-]++(?:\.[\w-]++)++")


class Pattern(msgspec.Struct, forbid_unknown_fields=True):
    """One more thing to mask."""

    regex: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
    replacement: Annotated[str, msgspec.Meta(pattern=r"^[ -~]*\Z")] = "***"  # ASCII, which each charset has

    def __post_init__(self) -> None:
        try:
            matches_nothing = regex.compile(self.regex).search("")
        except regex.error as error:
            raise ValueError(f"expected a regular expression: {error}") from None
        if matches_nothing:
            raise ValueError("expected a regular expression that does not match empty text")


class ResponseHardening(Base):
    class Conf(msgspec.Struct, forbid_unknown_fields=True):
        set: dict[str, str] = msgspec.field(default_factory=lambda: {"X-Content-Type-Options": "nosniff"})
        set_if_missing: dict[str, str] = {}  # where the upstream's own is better than this one
        remove: list[str] = msgspec.field(default_factory=lambda: ["Server", "X-Powered-By", "X-AspNet-Version"])
        mask_cards: bool = True
        mask_emails: bool = False
        mask: list[Pattern] = []
        max_bytes: Annotated[int, msgspec.Meta(ge=1, le=16_000_000)] = 1 << 20
        max_ms: Annotated[int, msgspec.Meta(ge=1, le=5_000)] = 200  # for one body
        when_unmaskable: Literal["refuse", "leave"] = "refuse"

        def __post_init__(self) -> None:
            for name in [*self.set, *self.set_if_missing, *self.remove]:
                if check_header_name(name) in FRAMING:
                    raise ValueError(f"expected other headers than {name}, which frames the message")
            for name, value in [*self.set.items(), *self.set_if_missing.items()]:
                check_header_value(name, value)

    config: Conf

    def setup(self) -> None:
        self.masks: list[Callable[[str, float], str]] = []
        if self.config.mask_cards:
            self.masks.append(mask_cards)
        if self.config.mask_emails:
            self.masks.append(masking(EMAIL, "***"))
        for one in self.config.mask:
            self.masks.append(masking(regex.compile(one.regex), one.replacement))

    def filter(self, request: Request, response: Response) -> None:
        request.headers["Accept-Encoding"] = "identity"
        for name in ("Range", "If-Range"):
            request.headers.pop(name, None)

    def filter_response(self, request: Request, response: Response) -> None:
        if self.masks and request.method != "HEAD" and response.status_code not in (204, 304):
            try:
                self.mask_body(response)
            except Unmaskable as problem:
                log.warning("%s cannot be masked: %s", request.path, problem)
                if self.config.when_unmaskable == "refuse":
                    response.headers.clear()
                    response.status_code = 502
                    response.body = {"error": "the response cannot be shown"}
        for name in self.config.remove:
            response.headers.pop(name, None)
        for name, value in self.config.set_if_missing.items():
            response.headers.setdefault(name, value)
        response.headers.update(self.config.set)

    def mask_body(self, response: Response) -> None:
        """Mask a textual body. Raises `Unmaskable`."""
        kinds = [kind.partition(";")[0].strip().lower() for kind in response.headers.getall("content-type")]
        if kinds and not any(map(TEXTUAL.fullmatch, kinds)):
            return
        if any(coding.lower() != "identity" for coding in response.headers.getall("content-encoding")):
            raise Unmaskable("it is compressed")
        if response.status_code == 206:
            raise Unmaskable("it is a part of a body")
        length = response.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.config.max_bytes:
            raise Unmaskable(f"it has {length} bytes")
        body = response.body or b""
        if not isinstance(body, bytes):
            raise Unmaskable("an earlier plugin of the conf has replaced it; name this one first")
        if len(body) > self.config.max_bytes:
            raise Unmaskable(f"it has {len(body)} bytes")
        charset = charset_of(response.headers.get("content-type", ""))
        text = body.decode(charset, "surrogateescape")
        masked = self.masked(text, any("json" in kind for kind in kinds))
        if masked != text:
            response.body = masked.encode(charset, "surrogateescape")
            for name in OF_THE_OLD_BODY:
                response.headers.pop(name, None)

    def masked(self, text: str, claims_json: bool) -> str:
        """A text with all masks applied, within the time that there is."""
        deadline = time.monotonic() + self.config.max_ms / 1000

        def plain(part: str) -> str:
            for mask in self.masks:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                part = mask(part, left)
            return part

        try:
            if claims_json and is_json(text):
                return JSON_TOKEN.sub(lambda token: json_masked(token[0], plain), text)
            return plain(text)
        except TimeoutError:
            raise Unmaskable(f"that takes more than {self.config.max_ms} ms") from None


class Unmaskable(Exception):
    """Why a body cannot be masked."""


def charset_of(content_type: str) -> str:
    """The codec of a textual body: of those in which any bytes survive decoding and encoding."""
    parameter = regex.search(r';\s*charset\s*=\s*"?([^\s";]+)', content_type, regex.IGNORECASE)
    try:
        codec = codecs.lookup(parameter[1] if parameter else "utf-8").name
    except (LookupError, ValueError):
        codec = "unknown"
    if codec not in ("utf-8", "ascii", "iso8859-1"):
        raise Unmaskable("its charset is neither UTF-8 nor ISO-8859-1")
    return codec


def masking(pattern: "regex.Pattern[str]", replacement: str) -> Callable[[str, float], str]:
    """What replaces matches of a pattern within some seconds, else raises TimeoutError."""
    return lambda text, seconds: pattern.sub(lambda _: replacement, text, timeout=seconds, concurrent=True)


def is_json(text: str) -> bool:
    """Whether a text is one JSON document."""
    try:
        msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def json_masked(token: str, plain: Callable[[str], str]) -> str:
    """A string or a number of a JSON text; what is masked is a string."""
    text = json.loads(token, strict=False) if token.startswith('"') else token
    masked = plain(text)
    return token if masked == text else json.dumps(masked)


# Card numbers


def mask_cards(text: str, seconds: float) -> str:
    """Card numbers, with or without spaces and hyphens between groups of digits: the last four digits stay."""
    deadline = time.monotonic() + seconds
    return DIGITS.sub(lambda run: cards_masked(run[0], deadline), text)


def cards_masked(run: str, deadline: float) -> str:
    """A run of groups of digits, with those masked that make a card number together."""
    groups = [(group.start(), group.end()) for group in regex.finditer(r"\d+", run)]
    masked, done = [], 0
    for first, (start, _) in enumerate(groups):
        if start < done:
            continue
        if time.monotonic() > deadline:
            raise TimeoutError
        for _, end in reversed(groups[first : first + 19]):
            number = run[start:end].replace(" ", "").replace("-", "")
            if 13 <= len(number) <= 19 and is_card(number):
                masked += [run[done:start], regex.sub(r"\d(?=(?:\D?\d){4})", "*", run[start:end])]
                done = end
                break
    return "".join(masked) + run[done:]


def is_card(number: str) -> bool:
    """Whether digits begin as those of the card schemes do, and end with the right check digit (ISO/IEC 7812, Luhn)."""
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in number[-2::-2])
    return number[0] in "23456" and (doubled + sum(map(int, number[-1::-2]))) % 10 == 0
