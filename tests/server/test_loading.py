"""Where a running runner's plugins come from, and that a file which never ends does not keep it from starting."""

import os
from pathlib import Path

from tests.server.connections import body_of
from tests.server.processes import Runner, Start
from tests.server.test_reload import reload

SAYS = "from apisix.runner.plugin.base import Base\n\nclass {0}(Base):\n    def filter(self, request, response):\n"


def says(name: str, text: str) -> str:
    return SAYS.format(name) + f"        self.stop(200, {text!r})\n"


def answer(runner: Runner, plugin: str) -> str:
    with runner.connect() as connection:
        return body_of(connection.call(connection.prepare((plugin, ""))))


def test_a_file_that_runs_for_ever_is_named_with_its_line_and_the_others_serve(start: Start) -> None:
    plugins = says("Ready", "ready") + "class Waits(Base): pass\nwhile True: time.sleep(0.001)\n"
    runner = start("", "--plugins-load-timeout", "0.5")
    runner.write(plugins, "waits.py")
    runner.write(says("Other", "other"), "other.py")
    reloaded_at = len(runner.log)
    runner.signal(1)
    refused = runner.log.wait_for("reload refused", reloaded_at)
    assert f"{runner.folder / 'waits.py'}:" in refused
    assert "does not import: still running after 0.5 s" in refused


def test_a_start_goes_on_without_a_file_that_runs_for_ever(start: Start) -> None:
    runner = start("time.sleep(3600)\n" + says("Never", "never"), "--plugins-load-timeout", "0.5")
    told = runner.log.wait_for("does not import")
    assert f"{runner.folder / 'plugins.py'}:" in told
    assert "still running after 0.5 s" in told
    assert "routes that use it fail" in told
    runner.wait_until_ready()


def test_named_and_installed_plugins_serve_and_a_reload_loads_their_new_code(start: Start, tmp_path: Path) -> None:
    site = tmp_path / "site"
    info = site / "acme_plugins-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-plugins\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[apisix.plugins]\noffered = acme_offered:Offered\n")
    (site / "acme_offered.py").write_text(says("Offered", "offered 1"))
    (site / "acme_named.py").write_text(says("Named", "named 1"))
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    runner = start("", "--plugin-class", "acme_named:Named", environ={"PYTHONPATH": path})
    assert (answer(runner, "named"), answer(runner, "offered")) == ("named 1", "offered 1")
    (site / "acme_offered.py").write_text(says("Offered", "offered two"))
    (site / "acme_named.py").write_text(says("Named", "named two"))
    reload(runner)
    assert (answer(runner, "named"), answer(runner, "offered")) == ("named two", "offered two")


def test_a_packages_helper_is_loaded_anew_too(start: Start) -> None:
    runner = start()
    package = runner.folder / "packed"
    package.mkdir()
    (package / "_words.py").write_text("WORD = 'one'\n")
    plugin = says("Packed", "").replace("''", "WORD").replace("\n\nclass", "\nfrom ._words import WORD\n\nclass")
    (package / "__init__.py").write_text(plugin)
    reload(runner)
    assert answer(runner, "packed") == "one"
    (package / "_words.py").write_text("WORD = 'another'\n")
    reload(runner)
    assert answer(runner, "packed") == "another"


def test_a_signal_that_a_plugin_uses_for_itself_ends_no_worker(start: Start) -> None:
    plugins = """
class Alarms(Base):
    def filter(self, request, response):
        self.stop(200, str(os.getpid()))
        os.kill(os.getpid(), signal.SIGALRM)

signal.signal(signal.SIGALRM, lambda *_: None)
"""
    runner = start(plugins)
    assert answer(runner, "alarms") == answer(runner, "alarms") == str(runner.worker())
