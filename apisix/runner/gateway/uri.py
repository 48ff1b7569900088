"""Request targets: how nginx decodes and encodes paths and arguments.

Rules that live here: `$uri` is the path percent-decoded, with repeated slashes merged and dot segments resolved; what
cannot be decoded is a bad request; arguments are split at `&`, decoded with `+` as a space, an argument without `=` has
no value, one without a name is dropped; three sets of bytes that stay as they are when text is encoded again.
Text is `str` with surrogateescape, as everywhere: any byte survives. Source: nginx `ngx_http_parse_complex_uri` and
`ngx_escape_uri`, lua-nginx-module `ngx.req.get_uri_args` and `ngx.encode_args`, as seen in recorded exchanges.
"""

import re
from typing import NamedTuple

Args = dict[str, list[str | None]]
"""Arguments by name, in order of first appearance; None is an argument without `=`."""

ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")

UNSAFE_IN_PATH = re.compile(rb'[\x00-\x20\x7f-\xff"#%<>?\\^`{|}]')
UNSAFE_IN_ARGS = re.compile(rb"[^A-Za-z0-9\-._~!*'()]")
UNSAFE_IN_TARGET = re.compile(rb"[^\x21-\x7e]")


class BadTarget(ValueError):
    """A request target that nginx answers with 400."""


class Target(NamedTuple):
    """A request target in its parts."""

    raw: str
    """As the client sent it, from the first slash on."""
    path: str
    """Decoded and normalised: nginx's `$uri`."""
    query: str
    """As the client sent it, without the question mark."""


def to_text(value: bytes) -> str:
    """Bytes as the text that stands for them."""
    return value.decode("utf-8", "surrogateescape")


def to_bytes(text: str) -> bytes:
    """The bytes that a text stands for."""
    return text.encode("utf-8", "surrogateescape")


def parse_target(raw: str) -> Target:
    """Split and decode what stands between method and version in a request line.

    Raises:
        BadTarget: no path, a broken escape, a NUL, or a path that climbs above the root.

    Example:
        >>> parse_target("/a%20b//./c/../d?x=1")
        Target(raw='/a%20b//./c/../d?x=1', path='/a b/d', query='x=1')
    """
    absolute = re.match(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]*", raw)
    if absolute is not None:
        raw = raw[absolute.end() :]
        raw = raw if raw.startswith("/") else "/" + raw
    if not raw.startswith("/"):
        raise BadTarget(f"expected a path that begins with /, got {raw!r}")
    raw = raw.partition("#")[0]
    path, _, query = raw.partition("?")
    return Target(raw, to_text(_decode_path(to_bytes(path))), query)


def _decode_path(path: bytes) -> bytes:
    if BAD_ESCAPE.search(path):
        raise BadTarget("a percent sign in the path is not followed by two hexadecimal digits")
    decoded = unescape(path)
    if b"\0" in decoded:
        raise BadTarget("the path has a NUL")
    segments: list[bytes] = []
    parts = decoded.split(b"/")[1:]
    for part in parts:
        if part == b"..":
            if not segments:
                raise BadTarget("the path climbs above the root")
            segments.pop()
        elif part not in (b"", b"."):
            segments.append(part)
    ends_open = parts[-1] in (b"", b".", b"..") and bool(segments)
    return b"/" + b"/".join(segments) + (b"/" if ends_open else b"")


def unescape(value: bytes) -> bytes:
    """Percent-decode; what is no escape stays as it is."""
    return ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), value)


def escape_path(path: str) -> str:
    """A path for the upstream's request line: `?` and `%` are encoded too.

    Example:
        >>> escape_path("/new?x=1 é")
        '/new%3Fx=1%20%C3%A9'
    """
    return _escape(path, UNSAFE_IN_PATH)


def escape_unsendable(target: str) -> str:
    """Encode only the bytes that cannot stand in a request line, such as a raw space."""
    return _escape(target, UNSAFE_IN_TARGET)


def _escape(text: str, unsafe: re.Pattern[bytes]) -> str:
    return unsafe.sub(lambda match: b"%%%02X" % match[0][0], to_bytes(text)).decode("ascii")


def parse_args(query: str) -> Args:
    """The arguments of a query string.

    Example:
        >>> parse_args("xx=y&xx=z&&y=&z&p=a+b")
        {'xx': ['y', 'z'], 'y': [''], 'z': [None], 'p': ['a b']}
    """
    args: Args = {}
    for part in to_bytes(query).split(b"&"):
        name, equals, value = part.partition(b"=")
        if name:
            decoded = to_text(unescape(value.replace(b"+", b" "))) if equals else None
            args.setdefault(to_text(unescape(name.replace(b"+", b" "))), []).append(decoded)
    return args


def encode_args(args: Args) -> str:
    """A query string of `args`.

    Example:
        >>> encode_args({"q": ["a b", ""], "z": [None]})
        'q=a%20b&q=&z'
    """
    parts = []
    for name, values in args.items():
        key = _escape(name, UNSAFE_IN_ARGS)
        parts += [key if value is None else f"{key}={_escape(value, UNSAFE_IN_ARGS)}" for value in values]
    return "&".join(parts)
