"""The text format, judged by the parser of prometheus-client."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from apisix.runner.metrics import text
from apisix.runner.metrics.region import Family

COUNTER = Family("sold_total", "counter", "Sold.", ("kind",))


def parsed(page: str) -> dict[str, float]:
    """The samples of a page, by name and labels as the parser prints them."""
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


@given(st.text().filter(lambda value: "\r" not in value), st.floats(0, 1e300))
def test_any_label_and_number_survives(value: str, number: float) -> None:
    page = text.write([(COUNTER, {(value,): [number]})])
    assert parsed(page) == {f"sold_total{[('kind', value)]}": number}


def test_a_histogram_is_cumulative_and_has_sum_and_count() -> None:
    family = Family("price", "histogram", "Prices.", ("shop",), (0.5, 10.0))
    page = text.write([(family, {("x",): [1.0, 2.0, 3.0, 44.5]})])
    assert page.splitlines()[2:] == [
        'price_bucket{shop="x",le="0.5"} 1',
        'price_bucket{shop="x",le="10"} 3',
        'price_bucket{shop="x",le="+Inf"} 6',
        'price_sum{shop="x"} 44.5',
        'price_count{shop="x"} 6',
    ]
    (read,) = text_string_to_metric_families(page)
    assert (read.type, len(read.samples)) == ("histogram", 5)


def test_help_and_type_stand_before_the_series_in_the_order_of_names() -> None:
    other = Family("a", "gauge", "One\nline \\ here.")
    page = text.write([(COUNTER, {("x",): [1.0]}), (other, {(): [0.25]})])
    assert page == (
        "# HELP a One\\nline \\\\ here.\n# TYPE a gauge\na 0.25\n"
        '# HELP sold_total Sold.\n# TYPE sold_total counter\nsold_total{kind="x"} 1\n'
    )


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0, "0"), (2.0**60, "1.152921504606847e+18"), (-math.inf, "-Inf"), (math.nan, "NaN")]
)
def test_numbers(value: float, shown: str) -> None:
    assert text.number(value) == shown
