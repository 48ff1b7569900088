"""The images and the compose file, as far as they can be checked without a daemon."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from apisix.runner import config
from apisix.runner.gateway import standalone
from apisix.runner.gateway.schema import check_route
from apisix.runner.gateway.versions import Version
from apisix.runner.testing.fixtures import GatewayFactory
from apisix.runner.testing.live import UPSTREAM_NODE
from tests.deploy import command_line
from tests.deploy.conftest import DEPLOY, PROJECT

DOCKER = DEPLOY / "docker"
PREFIX = "/opt/apisix-runner"


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return loaded


def instructions() -> Iterator[tuple[str, str]]:
    """The Dockerfile's instructions: the word, and the rest in one line."""
    text = re.sub(r"^\s*#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(str.strip, text.splitlines()):
        word, _, rest = line.partition(" ")
        yield word, rest


def stages() -> dict[str, dict[str, list[str]]]:
    """The instructions of each stage, by word."""
    found: dict[str, dict[str, list[str]]] = {}
    for word, rest in instructions():
        if word == "FROM":
            current = found.setdefault(rest.rpartition(" AS ")[2], {})
        elif found:
            current.setdefault(word, []).append(rest)
    return found


def environment(stage: str) -> dict[str, str]:
    words = [word for line in stages()[stage].get("ENV", []) for word in shlex.split(line)]
    return dict(word.split("=", 1) for word in words)


class TestImages:
    def test_the_recipe_is_without_complaint(self) -> None:
        hadolint = Path(sys.executable).with_name("hadolint")
        command = [str(hadolint), "--no-color", "--failure-threshold", "info", str(DOCKER / "Dockerfile")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "")

    def test_what_is_copied_is_there_and_in_the_build_context(self) -> None:
        admitted = [line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
        copies = [line.split() for stage in stages().values() for line in stage["COPY"] if "--from" not in line]
        sources = [word for words in copies for word in words[:-1]]
        assert sources
        for source in sources:
            assert (PROJECT / source).exists(), source
            assert any(Path(source).is_relative_to(one) for one in admitted), source

    @pytest.mark.parametrize("stage", ["runner", "gateway"])
    def test_they_run_as_the_user_of_the_gateway_and_not_as_root(self, stage: str) -> None:
        assert stages()[stage]["USER"][-1] == "636:636"

    def test_all_packages_are_checked_against_their_hashes(self) -> None:
        installs = [part for line in stages()["build"]["RUN"] for part in line.split("&&") if "pip install" in part]
        assert len(installs) == 3
        assert all("--require-hashes" in part or "--no-index" in part for part in installs)

    def test_the_runner_starts_with_the_settings_of_the_image(self, tmp_path: Path) -> None:
        """The file as it lies in the image, with a folder of plugins beside it."""
        (tmp_path / "plugins").mkdir()
        shutil.copy(DOCKER / "config.yaml", tmp_path)
        variables = environment("runner")
        assert variables[config.FILE_VARIABLE] == f"{PREFIX}/config.yaml"
        (line,) = stages()["runner"]["CMD"]
        command_line.check(json.loads(line), {**variables, config.FILE_VARIABLE: str(tmp_path / "config.yaml")})
        settings = config.load({}, variables, tmp_path / "config.yaml")
        assert settings.socket.file == Path("/run/apisix-runner/runner.sock")
        assert (settings.socket.mode, settings.socket.allow_users) == (0o600, ("636",))
        assert settings.plugins.paths == (tmp_path / "plugins",)

    def test_what_tells_whether_it_is_well_is_a_command(self) -> None:
        (line,) = stages()["runner"]["HEALTHCHECK"]
        program, *words = json.loads(line.partition("CMD ")[2])
        assert program == "apisix-runner"
        command_line.check(words)

    def test_apisix_starts_the_runner_by_a_command_that_is_in_the_image(self) -> None:
        program, *words = yaml.safe_load((DOCKER / "apisix-config-started.yaml").read_text())["ext-plugin"]["cmd"]
        assert program == f"{PREFIX}/venv/bin/apisix-runner"
        assert words == ["start", "--config", f"{PREFIX}/config.yaml"]


class TestCompose:
    def test_it_fits_the_specification(self) -> None:
        command = ["check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(DOCKER / "compose.yaml")]
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_what_is_mounted_is_there(self) -> None:
        mounts = [mount.split(":")[0] for one in compose()["services"].values() for mount in one.get("volumes", [])]
        files = [mount for mount in mounts if mount.startswith(".")]
        assert files
        assert [mount for mount in files if not (DOCKER / mount).exists()] == []

    def test_gateway_and_runner_meet_at_one_path(self) -> None:
        services = compose()["services"]
        mount = "socket:/run/apisix-runner"
        assert mount in services["apisix"]["volumes"]
        assert mount in services["runner"]["volumes"]
        path = yaml.safe_load((DOCKER / "apisix-config.yaml").read_text())["ext-plugin"]["path_for_test"]
        assert environment("runner")["APISIX_LISTEN_ADDRESS"] == f"unix:{path}"

    def test_the_commands_of_the_runner_are_commands(self) -> None:
        runner = compose()["services"]["runner"]
        variables = {"APISIX_LISTEN_ADDRESS": "unix:/run/apisix-runner/runner.sock"}
        assert command_line.check(runner["command"], variables).params["workers"] == "2"

    def test_nothing_is_published_beyond_loopback(self) -> None:
        ports = [port for one in compose()["services"].values() for port in one.get("ports", [])]
        assert ports
        assert [port for port in ports if not port.startswith("127.0.0.1:")] == []

    def test_the_runner_has_no_rights_that_it_does_not_need(self) -> None:
        runner = compose()["services"]["runner"]
        assert runner["read_only"] is True
        assert runner["cap_drop"] == ["ALL"]
        assert runner["security_opt"] == ["no-new-privileges:true"]


class TestRoutes:
    def test_the_route_is_a_route(self) -> None:
        routes = standalone.parse((DOCKER / "apisix.yaml").read_text())["routes"]
        assert routes
        for route in routes.values():
            check_route(route, Version())

    def test_the_plugin_adds_its_header(self, gateway: GatewayFactory) -> None:
        """The files of the images behind the embedded gateway; only the upstream is another one."""
        (route,) = yaml.safe_load((DOCKER / "apisix.yaml").read_text())["routes"]
        route["upstream"]["nodes"] = {UPSTREAM_NODE: 1}
        running = gateway([route], plugins=DOCKER / "plugins")
        assert running.get("/anything").status == 200
        assert [seen.headers["x-hello"] for seen in running.received] == ["from a plugin"]
