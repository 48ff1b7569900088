"""`apisix-runner plugins` and `schema`: which plugins there are, where they are from, and what their confs hold."""

import json
import re
from pathlib import Path

import pytest

from tests.commands.author import HEAD, PLUGIN, run, write

TYPED = """
import msgspec
from typing import Literal
from apisix.runner.plugin.base import Base

class RateLimit(Base):
    class Conf(msgspec.Struct):
        rate: int
        per: Literal["minute", "hour"] = "minute"
        paths: list[str] = []

    config: Conf

    async def filter(self, request, response): ...
    def filter_response(self, request, response): ...
"""


def test_each_is_told_with_name_phases_class_file_and_conf(tmp_path: Path) -> None:
    write(tmp_path / "plugins" / "limit.py", TYPED)
    write(tmp_path / "plugins" / "one.py", PLUGIN.format("One"))
    ended = run(tmp_path, "plugins")
    assert (ended.code, ended.err) == (0, "")
    assert [re.sub(" {2,}", "  ", line) for line in ended.lines] == [
        "NAME  PHASES  CLASS  FROM",
        "One  request  One  plugins/one.py",
        "RateLimit  request (async), response  RateLimit  plugins/limit.py",
        '  conf: rate: integer, per: "hour" | "minute" = "minute", paths: array of string = []',
    ]


def test_json_has_all_of_it_and_the_schema(tmp_path: Path) -> None:
    file = write(tmp_path / "plugins" / "limit.py", TYPED)
    (plugin,) = json.loads(run(tmp_path, "plugins", "--json").out)
    schema = plugin.pop("schema")
    assert plugin.pop("class").endswith(".limit.RateLimit")
    assert plugin == {
        "name": "RateLimit",
        "file": str(file),
        "distribution": None,
        "phases": ["request", "response"],
        "async": ["request"],
    }
    assert list(schema["$defs"]["Conf"]["properties"]) == ["rate", "per", "paths"]


def test_an_installed_one_is_told_with_its_distribution(tmp_path: Path) -> None:
    site = tmp_path / "site"
    write(site / "acme-1.2.dist-info" / "METADATA", "Metadata-Version: 2.1\nName: acme\nVersion: 1.2\n")
    write(site / "acme-1.2.dist-info" / "entry_points.txt", "[apisix.plugins]\nx = acme_x:One\n")
    write(site / "acme_x.py", PLUGIN.format("One"))
    (tmp_path / "plugins").mkdir()
    assert "site/acme_x.py (acme 1.2)" in run(tmp_path, "plugins", paths=[site]).out
    assert json.loads(run(tmp_path, "plugins", "--json", paths=[site]).out)[0]["distribution"] == "acme 1.2"
    assert json.loads(run(tmp_path, "plugins", "--json", "--plugins-installed", "none", paths=[site]).out) == []


def test_what_does_not_load_is_told_beside_the_others(tmp_path: Path) -> None:
    write(tmp_path / "plugins" / "one.py", PLUGIN.format("One"))
    write(tmp_path / "plugins" / "two.py", "\n1 / 0\n")
    ended = run(tmp_path, "plugins")
    assert ended.code == 1
    assert ended.lines[1].startswith("One ")
    assert ended.err == "plugins/two.py:2: does not import: ZeroDivisionError: division by zero\n"


@pytest.mark.parametrize("how", ["flag", "variable", "config"])
def test_where_plugins_are_may_be_said(tmp_path: Path, how: str) -> None:
    write(tmp_path / "plugins" / "one.py", PLUGIN.format("One"))
    write(tmp_path / "other" / "two.py", PLUGIN.format("Two"))
    config = write(tmp_path / "config.yaml", "plugins: {paths: [other]}")
    ended = {
        "flag": lambda: run(tmp_path, "plugins", "--plugins", "other"),
        "variable": lambda: run(tmp_path, "plugins", APISIX_RUNNER_PLUGINS_PATHS="other"),
        "config": lambda: run(tmp_path, "plugins", "--config", str(config)),
    }[how]()
    assert [line.split()[0] for line in ended.lines] == ["NAME", "Two"]


def test_without_a_folder_of_plugins_they_are_those_of_the_config_file(tmp_path: Path) -> None:
    assert [line.split()[0] for line in run(tmp_path, "plugins").lines] == ["NAME", "Rewrite", "Stop"]


def test_a_mistaken_setting_is_exit_code_3_and_one_line(tmp_path: Path) -> None:
    ended = run(tmp_path, "plugins", "--plugins", "nowhere")
    assert (ended.code, len(ended.err.splitlines())) == (3, 1)
    assert "expected a folder" in ended.err


class TestSchema:
    def test_prints_the_json_schema_of_a_conf(self, tmp_path: Path) -> None:
        write(tmp_path / "plugins" / "limit.py", TYPED)
        schema = json.loads(run(tmp_path, "schema", "rate_limit").out)
        assert (schema["title"], schema["$ref"]) == ("RateLimit", "#/$defs/Conf")
        assert schema["$defs"]["Conf"]["required"] == ["rate"]

    def test_of_a_pydantic_model_too(self, tmp_path: Path) -> None:
        text = (
            "from pydantic import BaseModel\n" + PLUGIN.format("Model") + "    class Conf(BaseModel):\n        a: int\n"
        )
        write(tmp_path / "plugins" / "model.py", text)
        assert json.loads(run(tmp_path, "schema", "model").out)["properties"]["a"]["type"] == "integer"

    def test_a_plugin_without_a_conf_type_accepts_anything(self, tmp_path: Path) -> None:
        write(tmp_path / "plugins" / "one.py", PLUGIN.format("One"))
        assert set(json.loads(run(tmp_path, "schema", "one").out)) == {"$schema", "title"}

    def test_an_unknown_plugin_is_told_with_the_closest(self, tmp_path: Path) -> None:
        write(tmp_path / "plugins" / "limit.py", TYPED)
        ended = run(tmp_path, "schema", "rate_limt")
        told = "plugin 'rate_limt': unknown plugin, loaded are: RateLimit; did you mean 'RateLimit'?"
        assert (ended.code, ended.out, ended.err) == (1, "", f"apisix-runner: {told}\n")

    def test_a_conf_that_json_schema_cannot_say_is_told(self, tmp_path: Path) -> None:
        text = "import msgspec\n" + HEAD + "class Own: ...\n" + PLUGIN.format("One").partition("\n")[2]
        write(tmp_path / "plugins" / "one.py", text + "    class Conf(msgspec.Struct):\n        own: Own\n")
        ended = run(tmp_path, "schema", "one")
        assert (ended.code, len(ended.err.splitlines())) == (1, 1)
        assert "its Conf has no JSON Schema" in ended.err
