"""ab_split: how many users each variant gets, who moves when weights change, and what clients and testers can do."""

from collections import Counter
from math import sqrt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apisix.runner.plugin.errors import ConfError
from apisix.runner.testing import GatewayFactory, PluginClient, PluginClientFactory
from examples.ab_split.plugins.ab_split import AbSplit, Variant, is_user, variant_of

USERS = [f"{number:032x}" for number in range(1_000)]
WEIGHTS = st.lists(st.integers(0, 100), min_size=2, max_size=5).filter(any)


def split(weights: list[int], experiment: str = "basket") -> dict[str, str]:
    """The variant of each user; variants are named by their number."""
    variants = [Variant(str(number), weight) for number, weight in enumerate(weights)]
    return {user: variant_of(experiment, variants, user).name for user in USERS}


# The split


@settings(max_examples=25, deadline=None)
@given(WEIGHTS)
def test_users_are_split_by_weight(weights: list[int]) -> None:
    counts = Counter(split(weights).values())
    for number, weight in enumerate(weights):
        share = weight / sum(weights)
        deviation = sqrt(len(USERS) * share * (1 - share))
        assert abs(counts[str(number)] - len(USERS) * share) <= 6 * deviation


@settings(max_examples=25, deadline=None)
@given(WEIGHTS, st.data())
def test_when_a_weight_changes_only_its_variant_wins_or_loses_users(weights: list[int], data: st.DataObject) -> None:
    changed = data.draw(st.integers(0, len(weights) - 1))
    others = [*weights[:changed], *weights[changed + 1 :]]
    weight = data.draw(st.integers(0 if any(others) else 1, 100))
    before, after = split(weights), split([*weights[:changed], weight, *weights[changed + 1 :]])
    moved = {(before[user], after[user]) for user in USERS if before[user] != after[user]}
    if weight >= weights[changed]:
        assert {to for _, to in moved} <= {str(changed)}
    else:
        assert {come_from for come_from, _ in moved} <= {str(changed)}


@settings(max_examples=25, deadline=None)
@given(WEIGHTS, st.integers(1, 100))
def test_a_new_variant_takes_users_and_moves_no_others(weights: list[int], weight: int) -> None:
    before, after = split(weights), split([*weights, weight])
    assert {after[user] for user in USERS if before[user] != after[user]} <= {str(len(weights))}


def test_only_the_ratio_of_weights_counts() -> None:
    assert split([1, 3]) == split([25, 75])


def test_experiments_are_independent() -> None:
    both = Counter(zip(split([1, 1], "a").values(), split([1, 1], "b").values(), strict=True))
    assert len(both) == 4
    assert all(abs(count - 250) < 6 * sqrt(250 * 3 / 4) for count in both.values())


def test_a_user_stays_where_he_is_in_every_release() -> None:
    assert "".join(split([1, 1]).values())[:16] == "1011111000101101"


# Cookies

CONF: dict[str, Any] = {
    "experiment": "basket",
    "variants": [
        {"name": "old", "weight": 1},
        {"name": "new", "weight": 1, "path_prefix": "/v2", "headers": {"X-Theme": "dark"}},
    ],
    "tester_secret": "a secret of testers",
}
OLD, NEW = USERS[1], USERS[0]


@pytest.fixture
def client(plugin_client: PluginClientFactory) -> PluginClient:
    return plugin_client(AbSplit, CONF)


def test_a_variant_has_its_path_and_headers(client: PluginClient) -> None:
    old = client.get("/basket?a=1", headers={"Cookie": f"ab={OLD}", "X-Ab-Variant": "new"})
    new = client.get("/basket?a=1", headers={"Cookie": f"ab={NEW}"})
    assert old.upstream is not None
    assert new.upstream is not None
    assert (old.upstream.path, old.upstream.headers["X-Ab-Variant"]) == ("/basket", "old")
    assert (new.upstream.path, new.upstream.headers["X-Ab-Variant"]) == ("/v2/basket", "new")
    assert (new.upstream.args["a"], new.upstream.headers["X-Theme"]) == ("1", "dark")
    assert "X-Theme" not in old.upstream.headers
    assert dict(new.headers) == {"X-Ab-Variant": "new"}


def test_who_comes_without_a_cookie_gets_one_and_stays(client: PluginClient) -> None:
    for _ in range(20):
        first = client.get()
        pair, *attributes = first.headers["Set-Cookie"].split("; ")
        name, _, user = pair.partition("=")
        assert (name, attributes) == ("ab", ["Path=/", "Max-Age=7776000", "HttpOnly", "SameSite=Lax", "Secure"])
        assert is_user(user)
        again = client.get(headers={"Cookie": pair})
        assert again.headers["X-Ab-Variant"] == first.headers["X-Ab-Variant"]
        assert "Set-Cookie" not in again.headers


@pytest.mark.parametrize(
    "cookies",
    [
        [""],
        ["ab"],
        ["ab="],
        [f"ab={OLD}0"],
        [f"ab={OLD[:-1]}G"],
        [f"ab={OLD}\udcff"],
        [f"AB={OLD}"],
        [f"xab={OLD}"],
        [f"x={OLD}; ;;=;ab"],
        ["ab=" + "0" * 10_000],
    ],
)
def test_what_is_no_cookie_of_ours_is_replaced(client: PluginClient, cookies: list[str]) -> None:
    assert "Set-Cookie" in client.get(headers=[("Cookie", cookie) for cookie in cookies]).headers


@pytest.mark.parametrize(
    "cookies", [[f"a=b; ab={OLD}"], ["a=b", f"ab={OLD}"], [f"ab=mine; ab={OLD}"], [f"ab={OLD};ab={NEW}"]]
)
def test_the_first_cookie_that_is_ours_counts(client: PluginClient, cookies: list[str]) -> None:
    result = client.get(headers=[("Cookie", cookie) for cookie in cookies])
    assert dict(result.headers) == {"X-Ab-Variant": "old"}


# Testers


def test_testers_choose(client: PluginClient) -> None:
    headers = {"Cookie": f"ab={OLD}", "X-Ab-Variant": "new", "X-Ab-Secret": "a secret of testers"}
    result = client.get("/basket", headers=headers)
    assert result.upstream is not None
    assert result.upstream.path == "/v2/basket"
    assert "X-Ab-Secret" not in result.upstream.headers
    wrong = client.get("/basket", headers={**headers, "X-Ab-Variant": "newer"})
    assert (wrong.status, wrong.json()) == (400, {"error": "X-Ab-Variant: expected one of the variants of basket"})


@pytest.mark.parametrize(
    "secrets", [[], [""], ["a secret"], ["a secret of testers\udcff"], ["a secret of testers", "a secret of testers"]]
)
def test_others_do_not(client: PluginClient, secrets: list[str]) -> None:
    headers = [("Cookie", f"ab={OLD}"), ("X-Ab-Variant", "new"), *(("X-Ab-Secret", secret) for secret in secrets)]
    result = client.get("/basket", headers=headers)
    assert result.upstream is not None
    assert (result.upstream.path, result.upstream.headers["X-Ab-Variant"]) == ("/basket", "old")
    assert "X-Ab-Secret" not in result.upstream.headers


def test_without_a_secret_in_the_conf_nobody_chooses(plugin_client: PluginClientFactory) -> None:
    client = plugin_client(AbSplit, {**CONF, "tester_secret": None})
    headers = {"Cookie": f"ab={OLD}", "X-Ab-Variant": "new", "X-Ab-Secret": ""}
    assert client.get(headers=headers).headers["X-Ab-Variant"] == "old"


# Confs


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"variants": []}, "variants"),
        ({"variants": [{"name": "a", "weight": 0}]}, "expected a weight above 0"),
        ({"variants": [{"name": "a", "weight": 1}, {"name": "a", "weight": 1}]}, "expected different names"),
        ({"variants": [{"name": "a", "weight": -1}]}, r"variants\[0\].weight"),
        ({"variants": [{"name": "a", "weight": 1, "path_prefix": "v2"}]}, r"variants\[0\].path_prefix"),
        ({"variants": [{"name": "a", "weight": 1, "path_prefix": "/v2/"}]}, r"variants\[0\].path_prefix"),
        ({"variants": [{"name": "a", "weight": 1, "headers": {"a b": ""}}]}, "cannot be a header's name"),
        ({"variants": [{"name": "a", "weight": 1, "headers": {"Connection": "close"}}]}, "which frames the message"),
        ({"cookie": "a;b"}, "cookie"),
        ({"experiment": "a\n"}, "experiment"),
        ({"tester_secret": "short"}, "tester_secret"),
    ],
)
def test_mistakes_are_found_before_the_first_request(
    plugin_client: PluginClientFactory, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfError, match=problem):
        plugin_client(AbSplit, {**CONF, **changes})


def test_behind_a_gateway(gateway: GatewayFactory) -> None:
    live = gateway()
    live.answer(200, [("Set-Cookie", "session=s1")])
    first = live.get("/basket?item=7")
    session, ours = sorted(first.headers.getall("Set-Cookie"))
    assert session == "session=s1"
    again = live.get("/basket?item=7", headers={"Cookie": ours.partition(";")[0]})
    assert again.headers.getall("Set-Cookie") == ["session=s1"]
    assert len({(request.path, request.headers["X-Ab-Variant"]) for request in live.received}) == 1
    live.get("/basket?item=7", headers={"X-Ab-Variant": "new", "X-Ab-Secret": "only-testers-know-this"})
    assert (live.received[-1].path, live.received[-1].args["item"]) == ("/v2/basket", "7")
