"""The alerts, asked of a real Prometheus that scrapes a real runner."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.conftest import DEPLOY
from tests.deploy.watched import RULES, Prometheus, watched
from tests.installed import needed
from tests.server.connections import SECONDS
from tests.server.processes import Runner
from tests.server.scraped import get


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Runner, Prometheus]]:
    """A runner, and the Prometheus that scrapes it."""
    with watched(tmp_path_factory.mktemp("watched"), every="200ms") as both:
        yield both


def test_every_alert_can_be_evaluated(scraped: tuple[Runner, Prometheus]) -> None:
    _, prometheus = scraped
    end = time.monotonic() + SECONDS
    while True:
        (group,) = prometheus.ask("rules")["groups"]
        health = {rule["name"]: (rule["health"], rule.get("lastError")) for rule in group["rules"]}
        if all(state != "unknown" for state, _ in health.values()):
            break
        assert time.monotonic() < end, health
    assert health == {rule["alert"]: ("ok", None) for rule in rules()}


def test_the_alerts_ask_for_what_the_runner_serves(scraped: tuple[Runner, Prometheus]) -> None:
    runner, _ = scraped
    served = set(re.findall(r"^(apisix_runner_\w+)", get(runner, "/metrics")[1], re.MULTILINE))
    asked = {name for rule in rules() for name in re.findall(r"apisix_runner_\w+", rule["expr"])}
    assert asked - served == set()


class TestRules:
    def test_prometheus_understands_rules_and_configuration(self, tmp_path: Path) -> None:
        """As the compose file mounts them."""
        (tmp_path / "rules").mkdir()
        shutil.copy(RULES, tmp_path / "rules")
        shutil.copy(DEPLOY / "docker" / "prometheus.yml", tmp_path)
        command = [needed("promtool"), "check", "config", str(tmp_path / "prometheus.yml")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{len(rules())} rules found" in done.stdout

    @pytest.mark.parametrize(
        ("alert", "series"),
        [
            ("ApisixRunnerDown", {"up{job='apisix-runner'}": "0x20"}),
            ("ApisixRunnerNotReady", {"apisix_runner_ready": "0x20"}),
            (
                "ApisixRunnerCallsFail",
                {
                    "apisix_runner_call_duration_seconds_count{outcome='failed'}": "0+2x20",
                    "apisix_runner_call_duration_seconds_count{outcome='passed'}": "0+98x20",
                },
            ),
            (
                "ApisixRunnerConfsRejected",
                {"apisix_runner_prepare_duration_seconds_count{outcome='failed'}": "0x15 1x5"},
            ),
            ("ApisixRunnerWorkersDie", {"apisix_runner_worker_restarts_total": "0+1x20"}),
            (
                "ApisixRunnerWorkersMissing",
                {"apisix_runner_workers{state='ready'}": "1x20", "apisix_runner_workers_wanted": "2x20"},
            ),
            ("ApisixRunnerReloadRefused", {"apisix_runner_reloads_total{outcome='refused'}": "0x15 1x5"}),
            (
                "ApisixRunnerSlow",
                {
                    "apisix_runner_call_duration_seconds_bucket{phase='request',le='1'}": "0+1x20",
                    "apisix_runner_call_duration_seconds_bucket{phase='request',le='2.5'}": "0+9x20",
                    "apisix_runner_call_duration_seconds_bucket{phase='request',le='+Inf'}": "0+9x20",
                },
            ),
            (
                "ApisixRunnerThreadsUsedUp",
                {"apisix_runner_threads_in_use{worker='0'}": "31x20", "apisix_runner_threads_limit": "32x20"},
            ),
            ("ApisixRunnerThreadsStuck", {"apisix_runner_threads_stuck{worker='0'}": "1x20"}),
            (
                "ApisixRunnerConnectionsUsedUp",
                {"apisix_runner_connections{worker='1'}": "4000x20", "apisix_runner_connections_limit": "4096x20"},
            ),
            ("ApisixRunnerMalformedFrames", {"apisix_runner_frames_refused_total{reason='malformed'}": "0x15 1x5"}),
        ],
    )
    def test_an_alert_fires_where_it_should_and_only_there(
        self, alert: str, series: dict[str, str], tmp_path: Path
    ) -> None:
        """After a quarter of an hour it fires; of a runner where all is well, no alert does."""
        shutil.copy(RULES, tmp_path)
        inputs = [{"series": labelled(name, "ill"), "values": values} for name, values in series.items()]
        inputs += [{"series": labelled(name, "well"), "values": well(name)} for name in series]
        query = "count by (alertname, instance) (ALERTS{alertstate='firing'})"
        expected = [{"labels": f'{{alertname="{alert}", instance="ill"}}', "value": 1}]
        test = {
            "interval": "1m",
            "input_series": inputs,
            "promql_expr_test": [{"expr": query, "eval_time": "18m", "exp_samples": expected}],
        }
        file = tmp_path / "test.yaml"
        file.write_text(yaml.safe_dump({"rule_files": [RULES.name], "evaluation_interval": "1m", "tests": [test]}))
        done = subprocess.run(
            [needed("promtool"), "test", "rules", str(file)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def test_each_alert_leads_to_a_page(self) -> None:
        pages = [rule["annotations"]["description"] for rule in rules()]
        assert [page for page in pages if not (DEPLOY.parent / page).is_file()] == []

    def test_each_alert_is_tried(self) -> None:
        (cases,) = self.test_an_alert_fires_where_it_should_and_only_there.pytestmark  # type: ignore[attr-defined]
        assert [case[0] for case in cases.args[1]] == [rule["alert"] for rule in rules()]


def labelled(series: str, instance: str) -> str:
    """A series with the labels of its runner."""
    name, _, own = series.rstrip("}").partition("{")
    labels = [own] if own else []
    if "job=" not in own:
        labels.append("job='apisix-runner'")
    return f"{name}{{{','.join([*labels, f'instance={instance!r}'])}}}"


def well(series: str) -> str:
    """A series as it is where all is well."""
    if series.startswith(("up{", "apisix_runner_ready")):
        return "1x20"
    if "_limit" in series or "_wanted" in series or "state='ready'" in series:
        return "2x20"
    if "outcome='passed'" in series or "le=" in series:
        return "0+100x20"
    return "0x20"
