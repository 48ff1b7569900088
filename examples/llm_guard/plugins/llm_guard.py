"""Guards a service that speaks OpenAI's chat completions: who may ask which model for how much, and what it is told.

- What goes on is written anew from what was read here: the upstream cannot read the same bytes another way.
- A request is charged what it may cost at most: its prompt, estimated, and all tokens that it may be answered with.
- Secrets and personal data in the texts of a prompt are replaced by what they are: `[email]`.
- Images and other parts that are not text are counted at a flat price, and go on as they are; unknown kinds do not.
- Budgets are kept in the memory of a worker. When there are too many keys, new ones wait: none is forgotten early.
- Errors have the format of OpenAI's, so that its clients understand them.
"""

import hashlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import regex

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base

Positive = Annotated[int, msgspec.Meta(ge=1)]
Kind = Annotated[str, msgspec.Meta(pattern=r"^\w{1,40}\Z")]

LIMITS = ("max_tokens", "max_completion_tokens")
MESSAGE_TOKENS = 4  # what a message costs besides its text
KNOWN_KINDS = {  # possessive (++), so that the time is linear
    "email": r"(?<![\w.%+-])[\w.%+-]++@[\w-]++(?:\.[\w-]++)++",
    "card": r"(?<!\d)(?=[2-6])(?:\d{4}([ -]?)\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{5})(?!\d)",  # see is_card
    "private_key": r"(?s)-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)",
    "jwt": r"\beyJ[\w-]{8,}+\.[\w-]++\.[\w-]++",
    "api_key": r"\b(?:[spr]k[-_][\w-]{16,}+|AKIA[0-9A-Z]{16}|gh[opsur]_\w{36,}+|xox[abprs]-[\w-]{10,}+)",
}


class LlmGuard(Base):
    class Conf(msgspec.Struct, forbid_unknown_fields=True):
        models: Annotated[list[str], msgspec.Meta(min_length=1)]
        budget: Positive  # tokens of a key in a window
        window_seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 60.0
        key_variable: Annotated[str, msgspec.Meta(min_length=1)] = "consumer_name"  # the gateway's, that tells who asks
        max_keys: Positive = 10_000  # whose budgets are kept
        max_tokens: Positive = 1_024  # of one answer
        limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_completion_tokens"
        max_choices: Positive = 1  # answers to one request
        max_bytes: Annotated[int, msgspec.Meta(ge=1, le=16_000_000)] = 1 << 20
        media: dict[str, Positive] = msgspec.field(default_factory=lambda: {"image_url": 1_000})  # kind of part: tokens
        redact: list[Literal["email", "card", "private_key", "jwt", "api_key"]] = msgspec.field(
            default_factory=lambda: ["email", "card", "private_key", "jwt", "api_key"]
        )
        redact_more: dict[Kind, str] = {}  # kind: regular expression
        redact_ms: Positive = 500  # for one request

        def __post_init__(self) -> None:
            if "text" in self.media:
                raise ValueError("media: expected kinds besides text, which is always looked at")
            for kind, pattern in self.redact_more.items():
                try:
                    matches_nothing = regex.compile(pattern).search("")
                except regex.error as error:
                    raise ValueError(f"redact_more.{kind}: expected a regular expression: {error}") from None
                if matches_nothing:
                    raise ValueError(f"redact_more.{kind}: expected one that does not match empty text")

    config: Conf

    def setup(self) -> None:
        patterns = {kind: KNOWN_KINDS[kind] for kind in self.config.redact} | self.config.redact_more
        self.patterns = {kind: regex.compile(pattern) for kind, pattern in patterns.items()}
        self.budgets = Budgets(self.config.budget, self.config.window_seconds, self.config.max_keys)

    def tokens(self, text: str) -> int:
        """How many tokens a text has, estimated: one for each 3 bytes. A subclass may count them exactly."""
        return math.ceil(len(text.encode()) / 3)

    def filter(self, request: Request, response: Response) -> None:
        try:
            asker = self.asker(request)
            document = self.read(request)
            self.limit(document)
            media = self.media_of(document)
            redacted, found = self.redacted(document, media)
            left = self.charge(asker, self.cost(redacted, media))
            request.body = redacted
        except (Refused, RecursionError) as error:
            refused = error if isinstance(error, Refused) else Refused(400, "The body is nested too deeply.")
            self.stop(refused.status, refused.body, headers=refused.headers)
            return
        response.headers["X-RateLimit-Limit-Tokens"] = str(self.config.budget)
        response.headers["X-RateLimit-Remaining-Tokens"] = str(left)
        if found:
            response.headers["X-Redacted"] = ", ".join(sorted(found))

    # What came.

    def asker(self, request: Request) -> bytes:
        """Whose budget it is: not the key itself, which may be a secret."""
        key = request.var(self.config.key_variable)
        if not key:
            raise Refused(401, "You didn't provide an API key.", code="invalid_api_key")
        return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()

    def read(self, request: Request) -> dict[str, Any]:
        """The request's JSON object, with one of the models that are allowed."""
        kinds = [kind.partition(";")[0].strip().lower() for kind in request.headers.getall("content-type")]
        if kinds != ["application/json"] or "content-encoding" in request.headers:
            raise Refused(415, "Expected one Content-Type, application/json, and no Content-Encoding.")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.config.max_bytes:
            raise Refused(413, f"Expected at most {self.config.max_bytes} bytes.")
        if len(request.body or b"") > self.config.max_bytes:  # without a Content-Length it is known only now
            raise Refused(413, f"Expected at most {self.config.max_bytes} bytes.")
        try:
            document = request.json()
        except ValueError:
            raise Refused(400, "The body is not JSON in UTF-8.") from None
        if not isinstance(document, dict):
            raise Refused(400, "Expected an object.")
        if not isinstance(document.get("stream", False), bool | None):
            raise Refused(400, "Expected true or false.", param="stream")
        if document.get("model") not in self.config.models:
            raise Refused(404, "The model does not exist or is not allowed.", param="model", code="model_not_found")
        return document

    def limit(self, document: dict[str, Any]) -> None:
        """Lower what may be answered to what is allowed."""
        for field in LIMITS:
            if document.get(field) is not None:
                document[field] = min(whole_number(document, field), self.config.max_tokens)
        if all(document.get(field) is None for field in LIMITS):
            document[self.config.limit_field] = self.config.max_tokens
        if document.get("n") is not None and whole_number(document, "n") > self.config.max_choices:
            raise Refused(400, f"Expected at most {self.config.max_choices}.", param="n")

    def media_of(self, document: dict[str, Any]) -> list[dict[str, Any]]:
        """The parts that are no text. Everything else in the messages is looked at."""
        messages = document.get("messages")
        if not isinstance(messages, list) or not messages:
            raise Refused(400, "Expected messages.", param="messages")
        media = []
        for place, message in enumerate(messages):
            if not isinstance(message, dict):
                raise Refused(400, "Expected an object.", param=f"messages.[{place}]")
            content = message.get("content")
            if content is None or isinstance(content, str):
                continue
            param = f"messages.[{place}].content"
            if not isinstance(content, list):
                raise Refused(400, "Expected text or a list of parts.", param=param)
            for part in content:
                kind = part.get("type") if isinstance(part, dict) else None
                if kind == "text" and isinstance(part.get("text"), str):
                    continue
                if not isinstance(kind, str) or kind not in self.config.media:
                    kinds = ", ".join(["text", *self.config.media])
                    raise Refused(400, f"Expected parts of these kinds: {kinds}.", param=param)
                for name in part.keys() - {"type", kind}:
                    del part[name]  # no text goes along unread
                media.append(part)
        return media

    # What goes on.

    def redacted(self, document: dict[str, Any], media: Sequence[Any]) -> tuple[dict[str, Any], set[str]]:
        """The document with its texts redacted, and the kinds that were found."""
        kept = {id(part) for part in media}
        deadline = time.monotonic() + self.config.redact_ms / 1000
        found: set[str] = set()

        def redact(text: str) -> str:
            for kind, pattern in self.patterns.items():
                seconds = deadline - time.monotonic()
                if seconds <= 0:
                    raise TimeoutError
                redacted = pattern.sub(replacement(kind), text, timeout=seconds, concurrent=True)
                if redacted != text:
                    found.add(kind)
                    text = redacted
            return text

        try:
            return {name: mapped(value, redact, kept) for name, value in document.items()}, found
        except TimeoutError:
            raise Refused(503, "The prompt could not be looked through in time.") from None

    def cost(self, document: dict[str, Any], media: Sequence[dict[str, Any]]) -> int:
        """Tokens that a request may cost: what it says, and what it may be answered with."""
        prompt = sum(self.tokens(text) for text in texts(document, {id(part) for part in media}))
        prompt += MESSAGE_TOKENS * len(document["messages"]) + sum(self.config.media[part["type"]] for part in media)
        answer = max(document.get(field) or 0 for field in LIMITS)
        return prompt + answer * (document.get("n") or 1)

    def charge(self, asker: bytes, tokens: int) -> int:
        """Take tokens from a budget. Returns what is left of it."""
        if tokens > self.config.budget:
            raise Refused(429, f"Request too large: limit {self.config.budget}, requested {tokens}.")
        spent = self.budgets.spend(asker, tokens)
        if not spent.allowed:
            seconds, left = math.ceil(spent.seconds), str(spent.left)
            told = f"Rate limit reached: limit {self.config.budget}, left {left}, requested {tokens}. "
            told += f"Please try again in {seconds}s."
            headers = {"Retry-After": str(seconds), "X-RateLimit-Remaining-Tokens": left}
            raise Refused(429, told, code="rate_limit_exceeded", headers=headers)
        return spent.left


class Refused(Exception):
    """An answer in place of the upstream's, in OpenAI's format of errors."""

    def __init__(
        self, status: int, message: str, *, param: str = "", code: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers
        kind = "tokens" if status == 429 else "server_error" if status >= 500 else "invalid_request_error"
        self.body = {"error": {"message": message, "type": kind, "param": param or None, "code": code or None}}


# JSON values


def whole_number(document: dict[str, Any], field: str) -> int:
    """A field that must be a number from 1."""
    value = document[field]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise Refused(400, "Expected a whole number from 1.", param=field)
    return value


def mapped(value: Any, change: Callable[[str], str], kept: Collection[int]) -> Any:
    """A value with every text in it changed, less the objects that are kept, by their id."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [mapped(item, change, kept) for item in value]
    if isinstance(value, dict) and id(value) not in kept:
        return {name: mapped(member, change, kept) for name, member in value.items()}
    return value


def texts(value: Any, kept: Collection[int]) -> Iterator[str]:
    """Every text and every name in a value, less the objects that are kept, by their id."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts(item, kept)
    elif isinstance(value, dict) and id(value) not in kept:
        for name, member in value.items():
            yield name
            yield from texts(member, kept)


def replacement(kind: str) -> Callable[["regex.Match[str]"], str]:
    """What stands for a match."""
    if kind == "card":
        return lambda match: "[card]" if is_card(regex.sub(r"\D", "", match[0])) else match[0]
    return lambda _: f"[{kind}]"


def is_card(number: str) -> bool:
    """Whether digits end with a card number's check digit (ISO/IEC 7812, Luhn)."""
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in number[-2::-2])
    return (doubled + sum(map(int, number[-1::-2]))) % 10 == 0


# Budgets


class Spent(NamedTuple):
    """What became of an attempt to spend."""

    allowed: bool
    left: int
    seconds: float
    """Until the window ends, or until there is room for another key."""


class Budgets:
    """Tokens that each key may spend in a window, which begins with its first request.

    Args:
        limit: tokens.
        seconds: of a window.
        max_keys: windows that are kept; when all of them are open, a new key is not allowed.
        clock: seconds.
    """

    def __init__(self, limit: int, seconds: float, max_keys: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._seconds, self._max_keys, self._clock = limit, seconds, max_keys, clock
        self._windows: OrderedDict[bytes, tuple[float, int]] = OrderedDict()  # ends and spent, in order of ends
        self._lock = threading.Lock()  # filters run in several threads

    def spend(self, key: bytes, tokens: int) -> Spent:
        """Spend tokens, where enough are left."""
        with self._lock:
            now = self._clock()
            while self._windows and self._first_end() <= now:
                self._windows.popitem(last=False)
            if key not in self._windows and len(self._windows) >= self._max_keys:
                return Spent(False, 0, self._first_end() - now)
            ends, spent = self._windows.get(key, (now + self._seconds, 0))
            if spent + tokens > self._limit:
                return Spent(False, self._limit - spent, ends - now)
            self._windows[key] = ends, spent + tokens
            return Spent(True, self._limit - spent - tokens, ends - now)

    def _first_end(self) -> float:
        return next(iter(self._windows.values()))[0]
