"""Lets in those with a JSON Web Token (RFC 7519) that an issuer has signed, and tells the upstream what it claims.

- The conf pins the algorithms: those of a shared secret, or those of a public key, never both. What a token says about
  its algorithm only picks among them.
- Issuer, audience and expiry are always checked.
- Keys of a JWKS (RFC 7517) are used for a lifetime, and fetched anew in the background from half of it on. An unknown
  key id is looked for at once, but not more often than every `jwks_retry` seconds. Without keys nobody is let in.
"""

import asyncio
import logging
import math
from time import monotonic
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import httpx
import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base

log = logging.getLogger("jwt_auth")

LONGEST_TOKEN = 8192
LARGEST_JWKS = 2**18
SHORTEST_RSA = 2048  # bits
SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}  # at least, RFC 7518, section 3.2
LOOPBACK = ("localhost", "127.0.0.1", "::1")
WHY = {
    jwt.ExpiredSignatureError: "it has expired",
    jwt.ImmatureSignatureError: "it is not valid yet",
    jwt.InvalidAudienceError: "it is for another audience",
    jwt.InvalidIssuerError: "it is of another issuer",
    jwt.MissingRequiredClaimError: "it lacks a claim",
}

Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
KINDS = {"RS": RSAPublicKey, "PS": RSAPublicKey, "ES": EllipticCurvePublicKey, "Ed": Ed25519PublicKey}
HeaderName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]+$")]
Text = Annotated[str, msgspec.Meta(min_length=1)]


class KeysUnavailable(Exception):
    """There are no keys that may be used."""


class JwtAuth(Base):
    class Conf(msgspec.Struct, forbid_unknown_fields=True):
        algorithms: Annotated[list[Algorithm], msgspec.Meta(min_length=1)]
        issuer: Text
        audience: Annotated[list[Text], msgspec.Meta(min_length=1)]  # the token must be for one of them
        secret: str = ""  # one of these three: for HS algorithms,
        public_key: str = ""  # in PEM,
        jwks_url: str = ""  # or where the issuer publishes its keys
        jwks_lifetime: Annotated[float, msgspec.Meta(ge=1)] = 600.0  # seconds that fetched keys are used
        jwks_retry: Annotated[float, msgspec.Meta(ge=0.1)] = 10.0  # seconds between two fetches, at least
        jwks_timeout: Annotated[float, msgspec.Meta(gt=0, le=4)] = 2.0  # seconds for one
        leeway: Annotated[float, msgspec.Meta(ge=0, le=300)] = 30.0  # seconds that clocks may differ
        # Claims that the upstream is told, each with its header.
        claims: dict[str, HeaderName] = msgspec.field(default_factory=lambda: {"sub": "X-User"})
        forward_token: bool = False

        def __post_init__(self) -> None:
            if sum(map(bool, (self.secret, self.public_key, self.jwks_url))) != 1:
                raise ValueError("expected one of secret, public_key and jwks_url")
            symmetric = [algorithm in SECRET_BYTES for algorithm in self.algorithms]
            if any(symmetric) != bool(self.secret) or len(set(symmetric)) > 1:
                raise ValueError("algorithms: expected HS... with a secret, the others with public_key or jwks_url")
            if self.jwks_url:
                url = urlsplit(self.jwks_url)
                if url.scheme != "https" and (url.scheme != "http" or url.hostname not in LOOPBACK):
                    raise ValueError("jwks_url: expected https://... (http:// only on this machine)")
            for algorithm in self.algorithms if not self.jwks_url else ():
                check_key(algorithm, self.secret or self.public_key)

    config: Conf
    timeout = 5.0

    def setup(self) -> None:
        conf = self.config
        self.jwks = Jwks(conf) if conf.jwks_url else None
        self.ours = {header.lower() for header in conf.claims.values()}

    async def filter(self, request: Request, response: Response) -> None:
        credentials = request.headers.getall("authorization")
        # Many upstreams take X_User for X-User, so neither is left.
        for name in [name for name in request.headers if name.lower().replace("_", "-") in self.ours]:
            del request.headers[name]
        if not self.config.forward_token:
            request.headers.pop("authorization", None)
        scheme, _, token = credentials[0].partition(" ") if len(credentials) == 1 else ("", "", "")
        if scheme.lower() != "bearer":
            self.stop(401, {"error": "expected a bearer token"}, headers={"WWW-Authenticate": "Bearer"})
            return
        try:
            claims = await self.verified(token.strip(" "))
            told = {header: as_text(claims[claim]) for claim, header in self.config.claims.items() if claim in claims}
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            why = WHY.get(type(error), "it is not valid")
            challenge = f'Bearer error="invalid_token", error_description="{why}"'
            self.stop(401, {"error": f"the token was refused: {why}"}, headers={"WWW-Authenticate": challenge})
        except KeysUnavailable:
            retry = str(math.ceil(self.config.jwks_retry))
            self.stop(503, {"error": "tokens cannot be checked now"}, headers={"Retry-After": retry})
        else:
            request.headers.update(told)
            request.state.claims, request.state.consumer = claims, claims.get("sub")  # for later plugins

    async def verified(self, token: str) -> dict[str, Any]:
        """The claims of a token.

        Raises:
            jwt.PyJWTError, ValueError, RecursionError: it is refused.
            KeysUnavailable: it cannot be told.
        """
        if len(token) > LONGEST_TOKEN or not token.isascii():
            raise ValueError("no token")
        conf = self.config
        header = jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        if algorithm not in conf.algorithms:  # before keys are fetched for it
            raise jwt.InvalidAlgorithmError("not an algorithm of the conf")
        key: PublicKey | str = conf.secret or conf.public_key
        if self.jwks is not None:
            key = await self.jwks.key(header.get("kid"), algorithm)
            if self.jwks.wants_refresh:
                self.after(self.jwks.refresh)
        return jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            issuer=conf.issuer,
            audience=conf.audience,
            leeway=conf.leeway,
            options={"require": ["exp", "iss", "aud"]},
        )


class Jwks:
    """The keys of an issuer, by id and algorithm. One fetch at a time, and no more than one in `jwks_retry` seconds."""

    def __init__(self, conf: JwtAuth.Conf) -> None:
        self.conf = conf
        self.keys: dict[tuple[str, str], PublicKey] = {}
        self.fetched = self.tried = -math.inf
        self.fetching = asyncio.Lock()
        self.tls = httpx.create_ssl_context()  # takes some milliseconds: not on the loop

    async def key(self, kid: object, algorithm: str) -> PublicKey:
        """A key.

        Raises:
            jwt.InvalidKeyError: the issuer has none such.
            KeysUnavailable: there are none that are fresh.
        """
        if not isinstance(kid, str):
            raise jwt.InvalidKeyError("the token does not say which key")
        if not self.fresh or (kid, algorithm) not in self.keys:
            await self.refresh()
        if not self.fresh:
            raise KeysUnavailable
        if (kid, algorithm) not in self.keys:
            raise jwt.InvalidKeyError("the issuer has no such key")
        return self.keys[kid, algorithm]

    @property
    def fresh(self) -> bool:
        """Whether the keys may be used."""
        return monotonic() < self.fetched + self.conf.jwks_lifetime

    @property
    def wants_refresh(self) -> bool:
        """Whether it is time to fetch the keys anew, although they may be used."""
        now = monotonic()
        old = now >= self.fetched + self.conf.jwks_lifetime / 2 and now >= self.tried + self.conf.jwks_retry
        return old and not self.fetching.locked()

    async def refresh(self) -> None:
        """Fetch the keys, unless that was tried a moment ago; where it fails those of before stay."""
        async with self.fetching:
            if monotonic() < self.tried + self.conf.jwks_retry:
                return
            try:
                self.keys = usable_keys(await self.fetch(), self.conf.algorithms)
                self.fetched = monotonic()
                log.info("%d keys from %s", len(self.keys), self.conf.jwks_url)
            except (httpx.HTTPError, TimeoutError, ValueError) as error:
                log.error("no keys from %s: %s: %s", self.conf.jwks_url, type(error).__name__, error)
            finally:
                self.tried = monotonic()

    async def fetch(self) -> bytes:
        """The key set as it comes."""
        async with (
            asyncio.timeout(self.conf.jwks_timeout),
            httpx.AsyncClient(verify=self.tls) as client,
            client.stream("GET", self.conf.jwks_url, headers={"Accept": "application/json"}) as answer,
        ):
            if answer.status_code != 200:
                raise ValueError(f"expected status 200, got {answer.status_code}")
            body = b""
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > LARGEST_JWKS:
                    raise ValueError(f"expected at most {LARGEST_JWKS} bytes")
            return body


class KeySet(msgspec.Struct):
    """A JWKS, as far as it is looked at here."""

    keys: list[dict[str, Any]]


def usable_keys(body: bytes, algorithms: list[Algorithm]) -> dict[tuple[str, str], PublicKey]:
    """The keys of a key set that can check signatures, by id and algorithm. The others are left out.

    Raises:
        ValueError: it is none, or has no such key.
    """
    keys: dict[tuple[str, str], PublicKey] = {}
    for jwk in msgspec.json.decode(body, type=KeySet).keys:
        kid = jwk.get("kid")
        if not isinstance(kid, str) or jwk.get("use", "sig") != "sig":
            continue
        for algorithm in algorithms:
            if jwk.get("alg", algorithm) == algorithm:
                try:
                    key = jwt.PyJWK(jwk, algorithm).key
                except (jwt.PyJWTError, ValueError, TypeError, KeyError):
                    continue
                if is_good(algorithm, key):
                    keys[kid, algorithm] = key
    if not keys:
        raise ValueError(f"expected keys for {', '.join(algorithms)} with an id, got none")
    return keys


def check_key(algorithm: str, key: str) -> None:
    """Check that a key of the conf is one for an algorithm; without telling what it is.

    Raises:
        ValueError: it is not.
    """
    try:
        prepared = jwt.get_algorithm_by_name(algorithm).prepare_key(key)
        good = len(prepared) >= SECRET_BYTES[algorithm] if algorithm in SECRET_BYTES else is_good(algorithm, prepared)
    except (jwt.PyJWTError, ValueError, TypeError):
        good = False
    if not good and algorithm in SECRET_BYTES:
        raise ValueError(f"secret: expected at least {SECRET_BYTES[algorithm]} random bytes for {algorithm}, no PEM")
    if not good:
        raise ValueError(
            f"public_key: expected a public key for {algorithm} in PEM, RSA with {SHORTEST_RSA} bits or more"
        )


def is_good(algorithm: str, key: object) -> bool:
    """Whether it is a public key for an algorithm, and long enough."""
    return isinstance(key, KINDS[algorithm[:2]]) and not (isinstance(key, RSAPublicKey) and key.key_size < SHORTEST_RSA)


def as_text(claim: object) -> str:
    """A claim as a header: text, a number, or a list of texts.

    Raises:
        ValueError: it cannot be told in a header, such that the upstream reads what the issuer meant.
    """
    if isinstance(claim, list) and all(isinstance(part, str) and "," not in part for part in claim):
        claim = ",".join(claim)
    if isinstance(claim, int) and not isinstance(claim, bool):
        claim = str(claim)
    if not isinstance(claim, str) or not claim.isprintable():
        raise ValueError("a claim cannot be told in a header")
    return claim
