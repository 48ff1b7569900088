"""What APISIX could do when: the one place where the embedded gateway knows about versions.

Every difference between versions is a `Feature` with the version that brought it. The rest of the gateway asks
``version.has(Feature.X)`` and never compares numbers itself. Source: `apisix/plugins/ext-plugin/init.lua`,
`apisix/core/request.lua` and `apisix/init.lua` at APISIX's release tags, 2.6 to 3.18.
"""

import re
from enum import Enum
from typing import NamedTuple

DEFAULT_VERSION = "3.18.0"
OLDEST = (2, 6, 0)

Release = tuple[int, int, int]


class Since(NamedTuple):
    """The first release that has a feature, and what it is."""

    release: Release
    what: str


class Feature(Enum):
    """What some versions of APISIX do and older ones do not."""

    UNKNOWN_TOKEN_RETRY = Since((2, 7, 0), "error 2 has the conf prepared again, three tries in all")
    TOKEN_PER_PHASE = Since((2, 7, 0), "pre-req and post-req of a route have a conf token each")
    LONG_TIMEOUTS = Since((2, 8, 0), "the runner has 60 s to send and to read, not 5 s")
    CONF_KEY = Since((2, 9, 0), "PrepareConf carries a key")
    ASK_VARIABLE = Since((2, 9, 0), "the runner may ask for a variable")
    STATUS_ZERO_STOPS = Since((2, 9, 0), "a stop with status 0 is a 200")
    SHARED_TOKENS = Since((2, 10, 3), "tokens in a shared dict; one PrepareConf at a time")
    ASK_REQUEST_BODY = Since((2, 12, 0), "the runner may ask for the request's body")
    DEGRADATION = Since((2, 12, 0), "allow_degradation lets a request pass when the runner fails")
    RESP_HEADERS = Since((2, 13, 0), "a rewrite may set headers of the client's response")
    RESPONSE_PHASE = Since((2, 14, 1), "ext-plugin-post-resp")
    REPEATED_HEADERS = Since((2, 14, 1), "repeated headers of an answer add up, and their names are lower-cased")
    ASK_IN_RESPONSE_PHASE = Since((3, 0, 0), "extra information in the response phase, the response's body included")
    RESPONSE_KEEPS_ALL = Since((3, 2, 0), "a response-phase answer may set every header")
    REWRITE_BODY = Since((3, 6, 0), "a rewrite may replace the request's body")
    FORWARDED_IN_HEADERS = Since((3, 14, 0), "X-Forwarded-* are request headers that plugins see")
    PATH_KEEPS_QUERY = Since((3, 16, 0), "a rewritten path without args keeps the request's query")
    FORWARDED_FOR_KEPT = Since((3, 18, 0), "the client's X-Forwarded-For is passed on (as it was before 3.14)")
    HEADER_CACHE_FOLDED = Since((3, 18, 0), "a rewritten header is cached under its lower-case name")


class Version:
    """One version of APISIX.

    Args:
        text: such as ``"2.7"``, ``"3.4.0"``; not older than 2.6.

    Raises:
        ValueError: not a version, or too old. The text is one line for the user.

    Example:
        >>> Version("2.15").has(Feature.RESPONSE_PHASE)
        True
    """

    def __init__(self, text: str = DEFAULT_VERSION) -> None:
        match = re.fullmatch(r"(\d{1,3})\.(\d{1,3})(?:\.(\d{1,3}))?", text)
        if match is None:
            raise ValueError(f"expected an APISIX version such as 2.15 or 3.18.0, got {text!r}")
        major, minor, patch = match.groups(default="0")
        self.text = text
        self.release: Release = (int(major), int(minor), int(patch))
        if self.release < OLDEST:
            raise ValueError(f"APISIX {text} has no plugin runners; expected 2.6 or newer")

    def has(self, feature: Feature) -> bool:
        """Whether this version does what `feature` says."""
        since: Since = feature.value
        return self.release >= since.release

    @property
    def header_limit(self) -> int | None:
        """How many request headers a runner gets to see at most; None for all of them."""
        return None if (2, 13, 0) <= self.release < (3, 10, 0) else 100

    def __str__(self) -> str:
        return self.text
