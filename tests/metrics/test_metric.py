"""What plugins count with."""

import logging
import math
from collections.abc import Callable, Iterator

import pytest

from apisix.runner.metrics import Counter, Gauge, Histogram, metric
from apisix.runner.metrics.region import Region, new_memory, read


@pytest.fixture(autouse=True)
def memory() -> Iterator[dict[str, dict[tuple[str, ...], tuple[float, ...]]]]:
    """What is read of the region that a test counts in, when it asks: by metric and labels' values."""
    shared = new_memory()
    before = metric._region
    metric.use(Region(shared))

    class Live(dict[str, dict[tuple[str, ...], tuple[float, ...]]]):
        def __missing__(self, name: str) -> dict[tuple[str, ...], tuple[float, ...]]:
            return {found.values: found.cells for found in read(shared) if found.family.name == name}

    yield Live()
    metric._region = before
    metric._families.clear()


Memory = dict[str, dict[tuple[str, ...], tuple[float, ...]]]


def test_a_counter_counts_and_its_name_ends_with_total(memory: Memory) -> None:
    sold = Counter("sold", "Sold.")
    sold.inc()
    sold.inc(2.5)
    assert memory["sold_total"] == {(): (3.5,)}
    assert sold.value == 3.5


def test_what_was_not_counted_yet_is_zero(memory: Memory) -> None:
    Counter("sold", "Sold.")
    assert memory["sold_total"] == {(): (0.0,)}


@pytest.mark.parametrize("amount", [-1, math.nan])
def test_a_counter_does_not_fall(amount: float) -> None:
    with pytest.raises(ValueError, match="never falls"):
        Counter("sold", "Sold.").inc(amount)


def test_labels_tell_series_apart(memory: Memory) -> None:
    sold = Counter("sold", "Sold.", labels=("kind", "size"))
    sold.labels(kind="a", size=1).inc()
    sold.labels(size=2, kind="a").inc(2)
    assert memory["sold_total"] == {("a", "1"): (1.0,), ("a", "2"): (2.0,)}


@pytest.mark.parametrize("labels", [{}, {"size": 1}, {"kind": 1, "size": 1}])
def test_labels_must_be_those_that_were_declared(labels: dict[str, int]) -> None:
    sold = Counter("sold", "Sold.", labels=("kind",))
    sold.labels(kind=1)
    with pytest.raises(ValueError, match="has the labels kind; got"):
        sold.labels(**labels)


def test_a_gauge_rises_and_falls(memory: Memory) -> None:
    left = Gauge("left", "Left.")
    left.set(5)
    left.dec()
    left.inc(0.5)
    assert memory["left"] == {(): (4.5,)}


def test_a_histogram_counts_by_bounds_which_belong_to_what_is_below(memory: Memory) -> None:
    price = Histogram("price", "Prices.", bounds=(1, 10))
    for value in (0.5, 1, 2, 11):
        price.observe(value)
    assert memory["price"] == {(): (2.0, 1.0, 1.0, 14.5)}
    assert (price.count, price.sum) == (4, 14.5)


def test_a_histogram_takes_the_time_of_a_block_even_if_it_raises() -> None:
    lookup = Histogram("lookup_seconds", "Look-ups.")
    with pytest.raises(KeyError), lookup.time():
        raise KeyError
    assert lookup.count == 1


def test_further_combinations_of_labels_are_counted_as_other(memory: Memory, caplog: pytest.LogCaptureFixture) -> None:
    seen = Counter("seen", "Seen.", labels=("user",))
    with caplog.at_level(logging.WARNING):
        for number in range(metric.MOST_SERIES + 50):
            seen.labels(user=number).inc()
    counted = memory["seen_total"]
    assert len(counted) == metric.MOST_SERIES + 1
    assert counted[("other",)] == (50.0,)
    assert len(caplog.messages) == 1


def test_a_long_value_is_cut_and_one_that_is_no_unicode_spelled_out(memory: Memory) -> None:
    seen = Counter("seen", "Seen.", labels=("user",))
    seen.labels(user="x" * 1000).inc()
    seen.labels(user="a\udcff").inc()
    assert set(memory["seen_total"]) == {("x" * metric.MOST_VALUE,), ("a\\udcff",)}


@pytest.mark.parametrize(
    "declare",
    [
        lambda: Counter("no name", ""),
        lambda: Counter("apisix_runner_mine", ""),
        lambda: Counter("sold", "", labels=("le",)),
        lambda: Counter("sold", "", labels=("a b",)),
        lambda: Counter("sold", "", labels="kind"),
        lambda: Gauge("left", "", merge="mean"),  # type: ignore[arg-type]
        lambda: Histogram("price", "", bounds=()),
        lambda: Histogram("price", "", bounds=(2, 1)),
        lambda: Histogram("price", "", bounds=(1, math.inf)),
        lambda: Histogram("price", "", bounds=range(100)),
    ],
)
def test_a_wrong_declaration_raises_where_it_stands(declare: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="metric"):
        declare()


def test_a_metric_may_be_declared_twice_if_it_is_the_same(memory: Memory) -> None:
    Counter("sold", "Sold.").inc()
    Counter("sold", "Sold.").inc()
    assert memory["sold_total"] == {(): (2.0,)}
    with pytest.raises(ValueError, match="declared twice"):
        Counter("sold", "Sold otherwise.")


def test_it_counts_where_nobody_reads() -> None:
    metric._region = None
    sold = Counter("sold", "Sold.")
    sold.inc()
    assert sold.value == 1
