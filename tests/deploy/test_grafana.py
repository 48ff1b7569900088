"""The dashboard, drawn in a browser from what a Prometheus has scraped of a runner under the benchmark's load.

Grafana's part is taken by the preview (dashboard.py): it fills in variables and intervals, asks and draws, as Grafana
does.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from playwright.sync_api import Browser, Page, expect

from tests.browser import opened_page
from tests.deploy.dashboard import DASHBOARD, PANELS, expect_drawn, panel, preview
from tests.deploy.watched import under_load, watched

SCHEMA = Draft7Validator(json.loads((Path(__file__).parent / "grafana" / "dashboard.schema.json").read_text()))
"""What Grafana's own types say; how it was made stands beside it in dashboard.ts."""


def test_by_grafanas_own_types_it_is_a_dashboard() -> None:
    assert [error.message for error in SCHEMA.iter_errors(json.loads(DASHBOARD.read_text()))] == []


@pytest.mark.parametrize("field", ["fieldConfig", "options", "gridPos"])
def test_by_those_a_mistaken_field_is_none(field: str) -> None:
    changed = json.loads(DASHBOARD.read_text())
    next(panel for panel in changed["panels"] if panel["title"] == "Ready")[field]["mistaken"] = 1
    assert not SCHEMA.is_valid(changed)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The preview's, while there is a load."""
    folder = tmp_path_factory.mktemp("watched")
    with (
        watched(folder, every="500ms") as (runner, prometheus),
        preview(prometheus) as address,
        under_load(runner, seconds=1),
    ):
        yield f"{address}&from=now-1m&refresh=1s"


@pytest.fixture(scope="module")
def dashboard(browser: Browser, address: str) -> Iterator[Page]:
    with opened_page(browser, address, height=2600) as page:
        yield page


@pytest.mark.parametrize("title", PANELS)
def test_each_query_of_a_panel_gives_something_and_it_is_drawn(dashboard: Page, title: str) -> None:
    expect_drawn(panel(dashboard, title))


def test_calls_are_told_apart(dashboard: Page) -> None:
    legend = panel(dashboard, "Runs by plugin").locator("li")
    for name in ("Stop request stopped", "Respond response passed", "Fails request failed", "Fails response failed"):
        expect(legend.filter(has_text=name)).to_have_count(1)


def test_values_have_their_units(dashboard: Page) -> None:
    for title, text in [
        ("Ready", "yes"),
        ("p99", r"\d (µs|ms|s)$"),
        ("Failed", r"\d%$"),
        ("Requests a second", "req/s"),
        ("Deaths of workers", "^1$"),
    ]:
        expect(panel(dashboard, title).locator("b")).to_have_text(re.compile(text))


def test_the_variables_offer_what_is_scraped(dashboard: Page) -> None:
    expect(dashboard.get_by_label("Job").locator("option")).to_have_text(["All", "apisix-runner"])
    expect(dashboard.get_by_label("Instance").locator("option")).to_have_text(["All", re.compile(r"^127\.0\.0\.1:")])


def test_an_instance_that_is_chosen_is_shown(browser: Browser, address: str) -> None:
    with opened_page(browser, address, height=2600) as page:
        page.get_by_label("Instance").select_option(index=1)
        expect(page).to_have_url(re.compile("var-instance="))
        for title in PANELS:
            expect_drawn(panel(page, title))


@pytest.mark.parametrize("variable", ["job", "instance"])
def test_every_query_is_about_what_was_chosen(browser: Browser, address: str, variable: str) -> None:
    with opened_page(browser, f"{address}&var-{variable}=another") as page:
        for title in PANELS:
            expect(panel(page, title)).to_have_attribute("data-series", re.compile("^0( 0)*$"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"targets": [{"expr": "sum(rate(", "legendFormat": ""}]}, "parse error"),
        ({"targets": [{"expr": "up[$__interva]", "legendFormat": ""}]}, "nothing stands for $__interva"),
        ({"fieldConfig": {"defaults": {"unit": "requests"}}}, "does not know the unit requests"),
    ],
)
def test_the_preview_draws_nothing_that_grafana_might_not(
    browser: Browser, address: str, changes: dict[str, Any], told: str
) -> None:
    changed = json.loads(DASHBOARD.read_text())
    one = next(panel for panel in changed["panels"] if panel["title"] == "Errors by kind")
    one.update(changes)
    with opened_page(browser, "about:blank") as page:
        page.route("**/apisix-runner.json", lambda route: route.fulfill(json=changed))
        page.goto(address)
        expect(panel(page, "Errors by kind")).to_have_attribute("data-state", "failed")
        expect(panel(page, "Errors by kind")).to_contain_text(told)
