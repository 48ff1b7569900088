import pytest

from apisix.runner.gateway.rpc import Limits
from apisix.runner.gateway.versions import Feature, Version


@pytest.mark.parametrize(
    ("feature", "last_without", "first_with"),
    [
        (Feature.UNKNOWN_TOKEN_RETRY, "2.6", "2.7"),
        (Feature.LONG_TIMEOUTS, "2.7", "2.8"),
        (Feature.CONF_KEY, "2.8", "2.9"),
        (Feature.ASK_VARIABLE, "2.8", "2.9"),
        (Feature.SHARED_TOKENS, "2.10.2", "2.10.3"),
        (Feature.ASK_REQUEST_BODY, "2.11.0", "2.12"),
        (Feature.DEGRADATION, "2.11.0", "2.12"),
        (Feature.RESP_HEADERS, "2.12.1", "2.13"),
        (Feature.RESPONSE_PHASE, "2.13.3", "2.14.1"),
        (Feature.ASK_IN_RESPONSE_PHASE, "2.99", "3.0"),
        (Feature.RESPONSE_KEEPS_ALL, "3.1.0", "3.2"),
        (Feature.REWRITE_BODY, "3.5.0", "3.6"),
        (Feature.FORWARDED_IN_HEADERS, "3.13.0", "3.14"),
        (Feature.PATH_KEEPS_QUERY, "3.15.0", "3.16"),
        (Feature.HEADER_CACHE_FOLDED, "3.17.0", "3.18"),
    ],
)
def test_a_feature_comes_with_its_release(feature: Feature, last_without: str, first_with: str) -> None:
    assert not Version(last_without).has(feature)
    assert Version(first_with).has(feature)
    assert Version(first_with + ".9" if first_with.count(".") == 1 else first_with).has(feature)


@pytest.mark.parametrize(("version", "limit"), [("2.12.1", 100), ("2.13", None), ("3.9.1", None), ("3.10.0", 100)])
def test_some_versions_show_a_runner_a_hundred_headers_at_most(version: str, limit: int | None) -> None:
    assert Version(version).header_limit == limit


def test_old_versions_wait_five_seconds_for_the_runner() -> None:
    assert (Limits.of(Version("2.7")).read, Limits.of(Version("2.8")).read) == (5.0, 60.0)


@pytest.mark.parametrize("text", ["", "3", "3.x", "v3.18", "3.18.0.1", "3.18 ", "latest"])
def test_what_is_no_version_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="expected an APISIX version such as"):
        Version(text)


def test_a_version_without_plugin_runners_is_told() -> None:
    with pytest.raises(ValueError, match=r"APISIX 2\.5 has no plugin runners; expected 2\.6 or newer"):
        Version("2.5")


def test_a_version_shows_as_it_was_given() -> None:
    assert str(Version("2.15")) == "2.15"
