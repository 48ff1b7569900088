"""The manifests and the chart's values: the API server's schemas, and what must agree across files.

The chart is apisix 2.14. Of its template only two facts are used here: `extPlugin.cmd` is written word by word without
quotes, and lists that begin with `extra` go into the pod as they are.
"""

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from apisix.runner.plugin.discovery import load_plugins
from apisix.runner.wire.messages import encode_prepare_conf_req
from tests.deploy import command_line
from tests.deploy.conftest import DEPLOY
from tests.server.connections import SECONDS, Connection
from tests.server.processes import Runner

FOLDER = DEPLOY / "kubernetes"
OLDEST = "1.29"
"""The first version with sidecars that are init containers which go on."""

SOCKET = "/run/apisix-runner/runner.sock"
STARTED = FOLDER / "values-started.yaml"
VALUES = FOLDER / "values.yaml"


def documents(name: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all((FOLDER / name).read_text()) if one]


def values(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(file.read_text())
    return loaded


def deployment() -> dict[str, Any]:
    (found,) = (one for one in documents("deployment.yaml") if one["kind"] == "Deployment")
    return found


def from_chart(given: dict[str, Any]) -> dict[str, Any]:
    """The deployment that the chart makes, as far as the values are for it."""
    labels = {"app.kubernetes.io/name": "apisix"}
    gateway = {
        "name": "apisix",
        "image": f"{given['image']['repository']}:{given['image']['tag']}",
        "volumeMounts": given["extraVolumeMounts"],
    }
    pod = {
        "securityContext": given["podSecurityContext"],
        "containers": [gateway],
        "initContainers": given.get("extraInitContainers", []),
        "volumes": given["extraVolumes"],
    }
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "apisix"}, "spec": spec}


def sidecar(pod: dict[str, Any]) -> dict[str, Any]:
    (found,) = (one for one in pod["initContainers"] if one["name"] == "runner")
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize(
    "document",
    [
        *documents("plugins.yaml"),
        *documents("deployment.yaml"),
        from_chart(values(VALUES)),
        from_chart(values(STARTED)),
    ],
    ids=lambda one: one["kind"],
)
def test_the_api_server_takes_it(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


class TestSidecar:
    def test_it_is_the_same_with_and_without_the_chart(self) -> None:
        pod = deployment()["spec"]["template"]["spec"]
        assert sidecar(pod) == sidecar(from_chart(values(VALUES))["spec"]["template"]["spec"])
        assert pod["securityContext"] == values(VALUES)["podSecurityContext"]

    def test_it_is_started_before_the_gateway_and_goes_on(self) -> None:
        runner = sidecar(deployment()["spec"]["template"]["spec"])
        assert runner["restartPolicy"] == "Always"
        assert "startupProbe" in runner

    def test_its_commands_are_commands(self) -> None:
        runner = sidecar(deployment()["spec"]["template"]["spec"])
        variables = {"APISIX_LISTEN_ADDRESS": f"unix:{SOCKET}"}
        assert command_line.check(runner["args"], variables).params["logging_format"] == "json"
        probes = [runner[name]["exec"]["command"] for name in ("startupProbe", "livenessProbe")]
        for program, *words in probes:
            assert program == "apisix-runner"
            command_line.check(words)

    def test_what_answers_for_it_is_the_endpoint_of_the_image(self) -> None:
        runner = sidecar(deployment()["spec"]["template"]["spec"])
        (port,) = runner["ports"]
        listen = yaml.safe_load((DEPLOY / "docker" / "config.yaml").read_text())["metrics"]["listen"]
        assert listen == f"0.0.0.0:{port['containerPort']}"
        assert runner["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": port["name"]}

    def test_it_has_no_rights_that_it_does_not_need(self) -> None:
        rights = sidecar(deployment()["spec"]["template"]["spec"])["securityContext"]
        assert rights["runAsNonRoot"] is True
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["capabilities"] == {"drop": ["ALL"]}

    def test_gateway_and_runner_share_the_socket_s_folder_and_their_user(self) -> None:
        pod = deployment()["spec"]["template"]["spec"]
        mounts = [one["volumeMounts"] for one in (*pod["containers"], sidecar(pod))]
        folders = [one["mountPath"] for many in mounts for one in many if one["name"] == "runner-socket"]
        assert folders == [str(Path(SOCKET).parent)] * 2
        gateway = yaml.safe_load(documents("deployment.yaml")[0]["data"]["config.yaml"])
        assert gateway["ext-plugin"]["path_for_test"] == SOCKET
        assert pod["securityContext"]["runAsUser"] == sidecar(pod)["securityContext"]["runAsUser"] == 636


class TestChart:
    @pytest.mark.parametrize("file", [VALUES, STARTED], ids=lambda file: file.name)
    def test_the_command_survives_being_written_without_quotes(self, file: Path) -> None:
        command = values(file)["apisix"]["extPlugin"]["cmd"]
        written = "cmd:\n" + "".join(f"  - {word}\n" for word in command)
        assert yaml.safe_load(written) == {"cmd": command}

    def test_a_runner_that_apisix_starts_has_the_command_of_the_image(self) -> None:
        config = yaml.safe_load((DEPLOY / "docker" / "apisix-config-started.yaml").read_text())
        assert values(STARTED)["apisix"]["extPlugin"]["cmd"] == config["ext-plugin"]["cmd"]

    def test_the_command_leads_the_gateway_to_the_sidecar(self, tmp_path: Path) -> None:
        """It is run as APISIX does it: the path in a variable, and SIGTERM at the end."""
        where_apisix_looks = tmp_path / "apisix-1.sock"
        with Runner() as runner:
            words = [word.replace(SOCKET, str(runner.path)) for word in values(VALUES)["apisix"]["extPlugin"]["cmd"]]
            environ = {"PATH": os.environ["PATH"], "APISIX_LISTEN_ADDRESS": f"unix:{where_apisix_looks}"}
            command = subprocess.Popen(words, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            try:
                runner.wait_until_ready()
                end = time.monotonic() + SECONDS
                while not where_apisix_looks.exists():
                    assert time.monotonic() < end
                    time.sleep(0.005)
                with Connection(where_apisix_looks) as connection:
                    assert connection.exchange(encode_prepare_conf_req([], None))
                command.terminate()
                assert command.communicate(timeout=SECONDS)[0] == b""
            finally:
                command.kill()
                command.communicate()


def test_the_plugins_of_the_config_map_load(tmp_path: Path) -> None:
    (config_map,) = documents("plugins.yaml")
    for name, text in config_map["data"].items():
        (tmp_path / name).write_text(text)
    registry = load_plugins([tmp_path])
    assert [str(problem) for problem in registry.problems] == []
    assert [definition.name for definition in registry.definitions()] == ["HelloHeader"]
