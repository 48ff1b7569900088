"""jwt_auth: which tokens are refused, what the upstream is told, and what becomes of an issuer's keys."""

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from apisix.runner.http.request import Request
from apisix.runner.http.response import Response
from apisix.runner.plugin.base import Base
from apisix.runner.plugin.errors import ConfError
from apisix.runner.testing import GatewayFactory, PluginClient, PluginClientFactory, plugin_route
from apisix.runner.testing.results import RequestResult
from examples.jwt_auth.plugins import jwt_auth
from examples.jwt_auth.plugins.jwt_auth import Jwks, JwtAuth, KeysUnavailable
from examples.jwt_auth.services import Issuer

RSA = rsa.generate_private_key(65537, 2048)
WEAK_RSA = rsa.generate_private_key(65537, 1024)
EC = ec.generate_private_key(ec.SECP256R1())
NEXT_EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
SECRET = "0123456789abcdef0123456789abcdef"
CLAIMS = {"iss": "https://id.example.org", "aud": "shop", "sub": "anna", "exp": 4102444800}
EXPECTED = {"issuer": "https://id.example.org", "audience": ["shop"]}
KeyPair = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def pem(key: KeyPair) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def token(key: KeyPair | str = EC, algorithm: str = "ES256", kid: str | None = "1", **claims: object) -> str:
    """A token; a claim of None is left out."""
    payload = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
    return jwt.encode(payload, key, algorithm, headers={} if kid is None else {"kid": kid})


def forged(header: dict[str, object], payload: object = CLAIMS, signature: bytes = b"x" * 64) -> str:
    parts = json.dumps(header).encode(), json.dumps(payload).encode(), signature
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def jwk(key: KeyPair, kid: str, **more: str) -> dict[str, Any]:
    kind = {rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm, ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm}
    to_jwk = next((algorithm for of, algorithm in kind.items() if isinstance(key, of)), jwt.algorithms.OKPAlgorithm)
    return {**to_jwk.to_jwk(key.public_key(), as_dict=True), "kid": kid, **more}  # type: ignore[attr-defined]


def key_set(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def ask(client: PluginClient, token: str, *more: tuple[str, str]) -> RequestResult:
    return client.get("/", headers=[("Authorization", f"Bearer {token}"), *more])


@pytest.fixture
def client(plugin_client: PluginClientFactory) -> PluginClient:
    conf = {**EXPECTED, "algorithms": ["ES256"], "public_key": pem(EC), "claims": {"sub": "X-User", "roles": "X-Roles"}}
    return plugin_client(JwtAuth, conf)


# What the upstream is told.


@pytest.mark.parametrize(
    ("claims", "headers"),
    [
        ({}, {"x-user": "anna"}),
        ({"roles": ["reader", "writer"]}, {"x-user": "anna", "x-roles": "reader,writer"}),
        ({"roles": 7}, {"x-user": "anna", "x-roles": "7"}),
        ({"sub": "Zoë"}, {"x-user": "Zoë"}),
        ({"sub": None}, {}),
        ({"aud": ["bank", "shop"]}, {"x-user": "anna"}),
    ],
)
def test_claims_become_headers(client: PluginClient, claims: dict[str, Any], headers: dict[str, str]) -> None:
    result = ask(client, token(**claims), ("X-User", "root"), ("X_Roles", "root"), ("x-roles", "root"))
    assert result.upstream is not None
    assert dict(result.upstream.headers) == {"host": "test", **headers}


@pytest.mark.parametrize("roles", [["a,root"], "a\r\nX-User: root", {"a": 1}, [1], None, True, "\ud800", [["a"]]])
def test_a_claim_that_no_header_can_tell_is_refused(client: PluginClient, roles: object) -> None:
    payload = {**CLAIMS, "roles": roles}
    assert ask(client, jwt.encode(payload, EC, "ES256")).status == 401


def test_later_plugins_are_told_too(plugin_client: PluginClientFactory) -> None:
    class Tells(Base):
        def filter(self, request: Request, response: Response) -> None:
            self.stop(200, {"claims": request.state.claims, "consumer": request.state.consumer})

    conf = {**EXPECTED, "algorithms": ["ES256"], "public_key": pem(EC)}
    assert ask(plugin_client([(JwtAuth, conf), (Tells, None)]), token()).json() == {
        "claims": CLAIMS,
        "consumer": "anna",
    }


def test_the_token_is_forwarded_where_the_conf_says_so(plugin_client: PluginClientFactory) -> None:
    conf = {**EXPECTED, "algorithms": ["ES256"], "public_key": pem(EC), "forward_token": True}
    sent = token()
    result = ask(plugin_client(JwtAuth, conf), sent)
    assert result.upstream is not None
    assert result.upstream.headers["Authorization"] == f"Bearer {sent}"


# What is refused.


@pytest.mark.parametrize(
    "credentials",
    [[], [""], ["Bearer"], ["Basic YTpi"], ["Bearertoken"], [token()], [f"Bearer {token()}"] * 2],
    ids=["none", "empty", "no token", "another scheme", "no space", "no scheme", "two"],
)
def test_without_one_bearer_token_the_client_is_told_the_scheme(client: PluginClient, credentials: list[str]) -> None:
    result = client.get("/", headers=[("Authorization", one) for one in credentials])
    assert (result.status, result.headers.getall("WWW-Authenticate")[0].split()[0]) == (401, "Bearer")


HOUR = 3600
NOW = int(time.time())


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (token(exp=NOW - HOUR), "it has expired"),
        (token(nbf=NOW + HOUR), "it is not valid yet"),
        (token(iat=NOW + HOUR), "it is not valid yet"),
        (token(aud="bank"), "it is for another audience"),
        (token(iss="https://id.example.com"), "it is of another issuer"),
        (token(exp=None), "it lacks a claim"),
        (token(aud=None), "it lacks a claim"),
        (token(iss=None), "it lacks a claim"),
        (token(exp="soon"), "it is not valid"),
        (token(NEXT_EC), "it is not valid"),
        (token(SECRET, "HS256"), "it is not valid"),
        (token(RSA, "RS256"), "it is not valid"),
        (jwt.encode(CLAIMS, "", algorithm="none"), "it is not valid"),
        (forged({"alg": "none"}), "it is not valid"),
        (forged({"alg": ["ES256"]}), "it is not valid"),
        (forged({"alg": "ES256"}), "it is not valid"),
        (forged({"alg": "ES256", "kid": 1}), "it is not valid"),
        (forged({"alg": "ES256", "crit": ["x"], "x": 1}), "it is not valid"),
        (forged({}), "it is not valid"),
        (token()[:-4], "it is not valid"),
        (token() + ".x", "it is not valid"),
        (token(sub="a" * 8192), "it is not valid"),
        (token() + "\udcff", "it is not valid"),
        ("..", "it is not valid"),
        (base64.urlsafe_b64encode(b"[" * 5000).decode() + ".e30.x", "it is not valid"),
    ],
)
def test_tokens_are_refused(client: PluginClient, bad: str, why: str) -> None:
    result = ask(client, bad)
    assert result.json() == {"error": f"the token was refused: {why}"}
    challenge = f'Bearer error="invalid_token", error_description="{why}"'
    assert (result.status, result.headers["WWW-Authenticate"]) == (401, challenge)


@given(st.text(max_size=200) | st.lists(st.binary(max_size=60), min_size=3, max_size=3))
def test_whatever_comes_it_is_refused_and_nothing_fails(text: str | list[bytes]) -> None:
    conf = {**EXPECTED, "algorithms": ["HS256"], "secret": SECRET}
    if isinstance(text, list):
        text = ".".join(base64.urlsafe_b64encode(part).decode() for part in text)
    text = "".join(text.split()).encode("utf-8", "replace").decode().replace("\0", "")
    with PluginClient(JwtAuth, conf) as client:
        assert ask(client, text).status == 401


def test_clocks_may_differ_by_the_leeway(plugin_client: PluginClientFactory) -> None:
    conf = {**EXPECTED, "algorithms": ["ES256"], "public_key": pem(EC)}
    late = token(exp=int(time.time()) - 20)
    assert ask(plugin_client(JwtAuth, conf), late).status == 0
    assert ask(plugin_client(JwtAuth, {**conf, "leeway": 0}), late).status == 401


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [("RS256", RSA), ("RS512", RSA), ("PS256", RSA), ("ES256", EC), ("EdDSA", ED), ("HS256", SECRET)],
)
def test_algorithms(plugin_client: PluginClientFactory, algorithm: str, key: KeyPair | str) -> None:
    source = {"secret": key} if isinstance(key, str) else {"public_key": pem(key)}
    client = plugin_client(JwtAuth, {**EXPECTED, "algorithms": [algorithm], **source})
    assert ask(client, token(key, algorithm)).status == 0


def test_a_public_key_is_no_secret(plugin_client: PluginClientFactory) -> None:
    """Who knows the public key must not be able to sign with it: HS256 in a token for RS256."""
    client = plugin_client(JwtAuth, {**EXPECTED, "algorithms": ["RS256"], "public_key": pem(RSA)})
    header = base64.urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=")
    payload = base64.urlsafe_b64encode(json.dumps(CLAIMS).encode()).rstrip(b"=")
    signing = jwt.get_algorithm_by_name("HS256")
    signature = base64.urlsafe_b64encode(signing.sign(header + b"." + payload, pem(RSA).encode())).rstrip(b"=")
    assert ask(client, b".".join((header, payload, signature)).decode()).status == 401


# What is found before the first request.


@pytest.mark.parametrize(
    ("conf", "problem"),
    [
        ({"algorithms": []}, "algorithms: expected array of length >= 1"),
        ({"algorithms": ["none"], "secret": SECRET}, "algorithms.*expected one of"),
        ({"algorithms": ["HS256"]}, "expected one of secret, public_key and jwks_url"),
        ({"algorithms": ["HS256"], "secret": SECRET, "public_key": pem(RSA)}, "expected one of secret"),
        ({"algorithms": ["HS256", "RS256"], "secret": SECRET}, "algorithms: expected HS... with a secret"),
        ({"algorithms": ["RS256"], "secret": SECRET}, "algorithms: expected HS... with a secret"),
        ({"algorithms": ["HS256"], "public_key": pem(RSA)}, "algorithms: expected HS... with a secret"),
        ({"algorithms": ["HS256"], "jwks_url": "https://id.example.org/"}, "algorithms: expected HS... with a secret"),
        ({"algorithms": ["HS256"], "secret": pem(RSA)}, "secret: expected at least 32 random bytes for HS256, no PEM"),
        ({"algorithms": ["HS512"], "secret": SECRET}, "secret: expected at least 64 random bytes for HS512"),
        ({"algorithms": ["RS256"], "public_key": SECRET}, "public_key: expected a public key for RS256 in PEM"),
        ({"algorithms": ["RS256"], "public_key": pem(EC)}, "public_key: expected a public key for RS256 in PEM"),
        ({"algorithms": ["RS256"], "public_key": pem(WEAK_RSA)}, "RSA with 2048 bits or more"),
        ({"algorithms": ["RS256"], "jwks_url": "http://id.example.org/"}, "jwks_url: expected https://"),
        ({"algorithms": ["RS256"], "jwks_url": "https://id.example.org/", "claims": {"sub": "X User"}}, "claims"),
        ({"algorithms": ["RS256"], "jwks_url": "https://id.example.org/", "issuer": ""}, "issuer"),
        ({"algorithms": ["RS256"], "jwks_url": "https://id.example.org/", "audience": []}, "audience"),
    ],
)
def test_mistakes(plugin_client: PluginClientFactory, conf: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfError, match=problem) as caught:
        plugin_client(JwtAuth, {**EXPECTED, **conf})
    assert SECRET not in str(caught.value)


# An issuer's keys.


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer(key_set(jwk(EC, "1"))) as issuer:
        yield issuer


class Clock:
    """What the plugin takes for the time."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(jwt_auth, "monotonic", clock)
    return clock


def jwks_conf(issuer: Issuer, **more: object) -> dict[str, object]:
    return {**EXPECTED, "algorithms": ["ES256", "RS256"], "jwks_url": issuer.url, **more}


@pytest.fixture
def shop(plugin_client: PluginClientFactory, issuer: Issuer, clock: Clock) -> PluginClient:
    """A lifetime of 600 seconds, and 10 seconds between two fetches."""
    return plugin_client(JwtAuth, jwks_conf(issuer))


def test_keys_are_fetched_once(shop: PluginClient, issuer: Issuer) -> None:
    assert [ask(shop, token()).status for _ in range(5)] == [0] * 5
    assert issuer.asked == 1


def test_a_new_key_is_found_at_once(shop: PluginClient, issuer: Issuer, clock: Clock) -> None:
    assert ask(shop, token()).status == 0
    issuer.body = key_set(jwk(EC, "1"), jwk(NEXT_EC, "2"))
    clock.now += 11
    assert ask(shop, token(NEXT_EC, kid="2")).status == 0
    assert issuer.asked == 2


def test_unknown_key_ids_cause_one_fetch_in_ten_seconds(shop: PluginClient, issuer: Issuer, clock: Clock) -> None:
    for _ in range(3):
        assert [ask(shop, token(kid=str(kid))).status for kid in range(2, 7)] == [401] * 5
        assert ask(shop, token()).status == 0
        clock.now += 11
    assert issuer.asked == 3


def test_tokens_that_no_key_could_check_cause_no_fetch(shop: PluginClient, issuer: Issuer) -> None:
    bad = [token(kid=None), token(SECRET, "HS256"), forged({"alg": "none", "kid": "1"}), "x.y.z"]
    assert [ask(shop, one).status for one in bad] == [401] * 4
    assert issuer.asked == 0


def test_keys_are_renewed_in_the_background_from_half_of_their_life_on(
    shop: PluginClient, issuer: Issuer, clock: Clock
) -> None:
    assert ask(shop, token()).status == 0
    issuer.body = key_set(jwk(NEXT_EC, "2"))
    clock.now += 301
    assert ask(shop, token()).status == 0  # with the old keys; after its answer the new ones are fetched
    assert issuer.asked == 2
    assert ask(shop, token(NEXT_EC, kid="2")).status == 0
    assert ask(shop, token()).status == 401


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b""),
        (302, b""),
        (200, b"<html>"),
        (200, b"{}"),
        (200, b'{"keys": []}'),
        (200, b'{"keys": [1]}'),
        (200, key_set({"kty": "EC", "kid": "1", "crv": "P-256", "x": "!", "y": "!"})),
        (200, key_set({"kty": "oct", "kid": "1", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"})),
        (200, key_set(jwk(WEAK_RSA, "1"))),
        (200, key_set(jwk(EC, "1", use="enc"))),
        (200, key_set(jwk(EC, "1", alg="ES384"))),
        (200, b" " * 300_000 + key_set(jwk(EC, "1"))),
    ],
)
def test_an_issuer_that_fails_is_borne_while_its_keys_are_fresh(
    shop: PluginClient, issuer: Issuer, clock: Clock, status: int, body: bytes
) -> None:
    assert ask(shop, token()).status == 0
    good, issuer.status, issuer.body = issuer.body, status, body
    clock.now += 599
    assert ask(shop, token()).status == 0
    clock.now += 2
    refused = ask(shop, token())
    assert (refused.status, refused.headers["Retry-After"]) == (503, "10")
    clock.now += 11
    assert ask(shop, token()).status == 503
    issuer.status, issuer.body = 200, good
    assert ask(shop, token()).status == 503  # it was asked a moment ago
    clock.now += 11
    assert ask(shop, token()).status == 0


def test_an_issuer_that_is_not_there_lets_nobody_in(plugin_client: PluginClientFactory) -> None:
    with Issuer(b"") as issuer:
        pass
    client = plugin_client(JwtAuth, jwks_conf(issuer))
    assert ask(client, token()).status == 503


def test_an_issuer_that_does_not_answer_is_waited_for_with_a_limit(
    plugin_client: PluginClientFactory, issuer: Issuer
) -> None:
    issuer.lets_go.clear()
    client = plugin_client(JwtAuth, jwks_conf(issuer, jwks_timeout=0.1))
    assert ask(client, token()).status == 503


def test_many_at_once_cause_one_fetch(issuer: Issuer) -> None:
    jwks = Jwks(msgspec.convert(jwks_conf(issuer), JwtAuth.Conf))

    async def all_at_once() -> None:
        await asyncio.gather(*(jwks.key("1", "ES256") for _ in range(50)))
        unknown = await asyncio.gather(*(jwks.key("2", "ES256") for _ in range(50)), return_exceptions=True)
        assert {type(one) for one in unknown} == {jwt.InvalidKeyError}

    asyncio.run(all_at_once())
    assert issuer.asked == 1


def test_many_at_once_fail_at_once(issuer: Issuer) -> None:
    issuer.status = 500
    jwks = Jwks(msgspec.convert(jwks_conf(issuer), JwtAuth.Conf))

    async def all_at_once() -> None:
        failed = await asyncio.gather(*(jwks.key("1", "ES256") for _ in range(50)), return_exceptions=True)
        assert {type(one) for one in failed} == {KeysUnavailable}

    asyncio.run(all_at_once())
    assert issuer.asked == 1


# Behind a gateway.


def test_behind_a_gateway(gateway: GatewayFactory, issuer: Issuer) -> None:
    live = gateway([plugin_route("jwt_auth", jwks_conf(issuer))], flags=("--workers", "1"))
    with ThreadPoolExecutor(10) as pool:
        sent = [{"Authorization": f"Bearer {token()}", "X-User": "root"}] * 30
        statuses = list(pool.map(lambda headers: live.get("/shop/list", headers=headers).status, sent))
    assert statuses == [200] * 30
    assert issuer.asked == 1
    assert {request.headers["X-User"] for request in live.received} == {"anna"}
    assert not any("Authorization" in request.headers for request in live.received)

    refused = live.get("/shop/list", headers={"Authorization": f"Bearer {token(NEXT_EC)}"})
    assert (refused.status, "invalid_token" in refused.headers["WWW-Authenticate"]) == (401, True)
    assert live.get("/shop/list").headers["WWW-Authenticate"] == "Bearer"
    assert len(live.received) == 30
    assert token() not in live.log


def test_a_conf_that_mixes_algorithms_lets_nobody_in(gateway: GatewayFactory) -> None:
    live = gateway()
    assert live.get("/confused", headers={"Authorization": f"Bearer {token()}"}).status == 503
    live.wait_for_log("route#confused: plugin 'jwt_auth': conf $: algorithms: expected HS... with a secret")
    assert live.received == []
