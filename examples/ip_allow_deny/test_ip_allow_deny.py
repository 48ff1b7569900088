"""ip_allow_deny: who is let in, and whose word for it is taken."""

from typing import Any

import pytest

from apisix.runner.plugin.errors import ConfError
from apisix.runner.testing import GatewayFactory, PluginClientFactory
from examples.ip_allow_deny.plugins.ip_allow_deny import IpAllowDeny


@pytest.mark.parametrize(
    ("conf", "address", "let_in"),
    [
        ({"allow": ["10.0.0.0/8"]}, "10.1.2.3", True),
        ({"allow": ["10.0.0.0/8"]}, "11.1.2.3", False),
        ({"allow": ["10.0.0.0/8"]}, "2001:db8::1", False),
        ({"allow": ["10.1.2.3"]}, "10.1.2.3", True),
        ({"allow": ["2001:db8::/32"]}, "2001:db8:1::1", True),
        ({"allow": ["2001:db8::/32"]}, "2001:db9::1", False),
        ({"allow": ["10.0.0.0/8"]}, "::ffff:10.1.2.3", True),
        ({"deny": ["10.0.0.0/8"]}, "::ffff:10.1.2.3", False),
        ({"deny": ["10.0.0.0/8"]}, "10.1.2.3", False),
        ({"deny": ["10.0.0.0/8"]}, "11.1.2.3", True),
        ({"allow": ["10.0.0.0/8"], "deny": ["10.1.0.0/16"]}, "10.1.2.3", False),
        ({"allow": ["10.0.0.0/8"], "deny": ["10.1.0.0/16"]}, "10.2.2.3", True),
    ],
)
def test_lists_decide_by_address(
    plugin_client: PluginClientFactory, conf: dict[str, Any], address: str, let_in: bool
) -> None:
    result = plugin_client(IpAllowDeny, conf).get("/", remote_addr=address)
    assert (result.stopped, result.status) == ((False, 0) if let_in else (True, 403))


BEHIND_PROXIES = {"allow": ["192.0.2.7"], "trusted_proxies": ["10.0.0.0/8", "2001:db8::1"]}


@pytest.mark.parametrize(
    ("address", "forwarded", "let_in"),
    [
        ("10.0.0.1", ["192.0.2.7"], True),
        ("2001:db8::1", ["192.0.2.7"], True),
        ("10.0.0.1", ["192.0.2.7, 10.0.0.2"], True),
        ("10.0.0.1", ["192.0.2.7", "10.0.0.2"], True),
        ("10.0.0.1", ["192.0.2.7, 198.51.100.1"], False),  # 192.0.2.7 is what an unknown client claims
        ("198.51.100.1", ["192.0.2.7"], False),
        ("192.0.2.7", ["198.51.100.1"], True),
        ("10.0.0.1", [], False),
        ("10.0.0.1", ["192.0.2.7, unknown"], False),
        ("10.0.0.1", ["192.0.2.7:4711"], False),
    ],
)
def test_only_trusted_proxies_are_believed(
    plugin_client: PluginClientFactory, address: str, forwarded: list[str], let_in: bool
) -> None:
    headers = [("X-Forwarded-For", value) for value in forwarded]
    result = plugin_client(IpAllowDeny, BEHIND_PROXIES).get("/", headers=headers, remote_addr=address)
    assert result.stopped is not let_in


def test_the_answer_has_the_message_of_the_conf(plugin_client: PluginClientFactory) -> None:
    result = plugin_client(IpAllowDeny, {"allow": ["10.0.0.0/8"], "message": "staff only"}).get()
    assert (result.status, result.json()) == (403, {"error": "staff only"})


@pytest.mark.parametrize(
    ("conf", "problem"),
    [
        ({}, "expected entries in allow or deny, got none"),
        ({"allow": ["10.0.0.0/8", "10.0.0.1/8"]}, r"allow\[1\]: expected an address or a network"),
        ({"deny": ["office"]}, r"deny\[0\]: expected an address or a network"),
        ({"deny": ["::ffff:10.0.0.0/104"]}, r"deny\[0\]: expected an IPv4 network"),
        ({"deny": ["10.0.0.1"], "trusted_proxies": [""]}, r"trusted_proxies\[0\]: expected an address"),
        ({"denied": ["10.0.0.1"]}, "unknown field denied"),
    ],
)
def test_mistakes_are_found_before_the_first_request(
    plugin_client: PluginClientFactory, conf: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfError, match=problem):
        plugin_client(IpAllowDeny, conf)


def test_behind_a_gateway(gateway: GatewayFactory) -> None:
    live = gateway()
    assert live.get("/office/plan").status == 403
    assert live.get("/office/plan", headers={"X-Forwarded-For": "10.6.6.6"}).status == 403
    assert live.received == []
    assert live.get("/office/plan", headers={"X-Forwarded-For": "10.1.2.3"}).status == 200
    assert [request.path for request in live.received] == ["/office/plan"]


def test_a_mistaken_conf_lets_nobody_in(gateway: GatewayFactory) -> None:
    live = gateway()
    assert live.get("/mistaken").status == 503
    live.wait_for_log("route#mistaken: plugin 'ip_allow_deny': conf $: allow[1]: expected an address or a network")
    assert live.received == []
