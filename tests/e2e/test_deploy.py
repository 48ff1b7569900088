"""deploy/e2e: what starts a real APISIX for this suite says what the suite needs. No engine runs it here."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parent.parent.parent / "deploy" / "e2e"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]["apisix"]
CONFIGS = ["config.yaml", "config-2.yaml"]


def config(name: str) -> Any:
    """A config file of APISIX."""
    return yaml.safe_load((FOLDER / name).read_text())


def mounts() -> dict[str, str]:
    """Where the container sees what, variables replaced by their defaults."""
    volumes = [re.sub(r"\$\{\w+:-(.*?)\}", r"\1", volume) for volume in COMPOSE["volumes"]]
    return {inside: outside for outside, inside in (volume.removesuffix(":ro").split(":") for volume in volumes)}


def test_the_version_can_be_chosen() -> None:
    assert COMPOSE["image"] == "apache/apisix:${APISIX_VERSION:-3.18.0-debian}"


def test_the_files_that_are_mounted_are_there() -> None:
    assert mounts()["/usr/local/apisix/conf/config.yaml"] == "./config.yaml"
    assert all((FOLDER / name).is_file() for name in CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_runners_socket_is_in_the_folder_of_both(name: str) -> None:
    assert Path(config(name)["ext-plugin"]["path_for_test"]).parent == Path("/run/apisix-runner")
    assert mounts()["/run/apisix-runner"] == "/tmp/apisix-e2e"


@pytest.mark.parametrize("name", CONFIGS)
def test_the_gateway_is_where_the_suite_looks_for_it(name: str) -> None:
    assert (COMPOSE["network_mode"], config(name)["apisix"]["node_listen"]) == ("host", 9080)


def test_routes_come_from_the_file_that_the_suite_writes() -> None:
    assert mounts()["/usr/local/apisix/conf/apisix.yaml"] == "/tmp/apisix-e2e/apisix.yaml"
    deployment = config("config.yaml")["deployment"]
    assert (deployment["role"], deployment["role_data_plane"]["config_provider"]) == ("data_plane", "yaml")
    apisix = config("config-2.yaml")["apisix"]
    assert (apisix["config_center"], apisix["enable_admin"]) == ("yaml", False)


def test_every_variable_of_the_suite_is_told() -> None:
    told = set(re.findall(r"E2E_\w+", (FOLDER / "README.md").read_text()))
    read = set(re.findall(r"E2E_\w+", (Path(__file__).parent / "conftest.py").read_text()))
    assert told == read
