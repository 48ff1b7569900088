"""Splits users among variants of a service, each always to the same one.

- A user is a random number in a cookie, which is set where there is none. Experiment, variant and user are hashed
  together, and the greatest hash wins (weighted rendezvous hashing): nothing is stored, every worker decides the same,
  and when a weight grows users move to that variant only, when it shrinks only from it.
- Testers choose a variant by a header, with a secret, which does not reach the upstream.
- The upstream is told the variant by a header that clients cannot forge.
"""

import hashlib
import hmac
import math
import re
import secrets
from collections.abc import Sequence
from typing import Annotated

import msgspec

from apisix.runner.http.fields import check_header_name, check_header_value
from apisix.runner.http.request import UNSENDABLE, Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")]
CHOSEN = "X-Ab-Variant"  # of testers, with CHOSEN_SECRET; to the upstream and back to the client
CHOSEN_SECRET = "X-Ab-Secret"
is_user = re.compile(r"[0-9a-f]{32}").fullmatch


class Variant(msgspec.Struct, forbid_unknown_fields=True):
    """Where a part of the users goes."""

    name: Name
    weight: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]  # its share is this, of the sum of all
    path_prefix: Annotated[str, msgspec.Meta(pattern=r"^(/[^/?#%]+)*\Z")] = ""  # put before the path
    headers: dict[str, str] = {}  # set on the request

    def __post_init__(self) -> None:
        for name, value in self.headers.items():
            if check_header_name(name) in UNSENDABLE:
                raise ValueError(f"headers: expected others than {name}, which frames the message")
            check_header_value(name, value)


class AbSplit(Base):
    class Conf(msgspec.Struct, forbid_unknown_fields=True):
        experiment: Name  # another name splits the same users another way
        variants: Annotated[list[Variant], msgspec.Meta(min_length=1, max_length=50)]
        cookie: Name = "ab"
        cookie_days: Annotated[int, msgspec.Meta(ge=1, le=400)] = 90
        cookie_secure: bool = True  # False only where clients speak plain HTTP
        tester_secret: Annotated[str, msgspec.Meta(min_length=16)] | None = None

        def __post_init__(self) -> None:
            names = [variant.name for variant in self.variants]
            if len(set(names)) < len(names):
                raise ValueError("variants: expected different names")
            if not any(variant.weight for variant in self.variants):
                raise ValueError("variants: expected a weight above 0")

    config: Conf
    blocking = False

    def filter(self, request: Request, response: Response) -> None:
        user = cookie_of(request, self.config.cookie)
        if user is None:
            user = secrets.token_hex(16)
            response.headers["Set-Cookie"] = self.set_cookie(user)
        variant = variant_of(self.config.experiment, self.config.variants, user)
        if self.is_tester(request):
            chosen = [variant for variant in self.config.variants if variant.name == request.headers.get(CHOSEN)]
            if not chosen:
                self.stop(400, {"error": f"{CHOSEN}: expected one of the variants of {self.config.experiment}"})
                return
            variant = chosen[0]
        request.headers.pop(CHOSEN_SECRET, None)
        request.headers[CHOSEN] = response.headers[CHOSEN] = variant.name
        request.headers.update(variant.headers)
        if variant.path_prefix:
            request.path = variant.path_prefix + request.path

    def is_tester(self, request: Request) -> bool:
        """Whether the request comes with the secret, which is compared in constant time."""
        given = request.headers.getall(CHOSEN_SECRET)
        if self.config.tester_secret is None or len(given) != 1 or CHOSEN not in request.headers:
            return False
        return hmac.compare_digest(given[0].encode("utf-8", "surrogateescape"), self.config.tester_secret.encode())

    def set_cookie(self, user: str) -> str:
        """The header's value that makes a client remember."""
        secure = "; Secure" if self.config.cookie_secure else ""
        age = self.config.cookie_days * 86_400
        return f"{self.config.cookie}={user}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}"


def cookie_of(request: Request, name: str) -> str | None:
    """The user in the cookie of a name; None where no cookie of that name holds one."""
    for pair in ";".join(request.headers.getall("cookie")).split(";"):
        key, _, value = pair.strip().partition("=")
        if key == name and is_user(value):
            return value
    return None


def variant_of(experiment: str, variants: Sequence[Variant], user: str) -> Variant:
    """The variant of a user.

    Args:
        experiment: its name, so that a user's place in one experiment says nothing about that in another.
        variants: with at least one weight above 0.
        user: any text.

    Example:
        >>> variant_of("basket", [Variant("old", 9), Variant("new", 1)], "user 7").name
        'old'
    """

    def score(variant: Variant) -> float:
        digest = hashlib.blake2b(f"{experiment}\0{variant.name}\0{user}".encode(), digest_size=8).digest()
        between_0_and_1 = ((int.from_bytes(digest) >> 12) + 0.5) / 2**52  # 52 bits: neither 0 nor rounded to 1
        return variant.weight / -math.log(between_0_and_1)

    return max(variants, key=score)
