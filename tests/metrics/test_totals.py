"""What several processes amount to, and what stays of those that ended."""

from apisix.runner.metrics.region import Family, Found
from apisix.runner.metrics.totals import MOST_KEPT, Samples, Totals

SOLD = Family("sold_total", "counter", "Sold.", ("kind",))
LEFT = Family("left", "gauge", "Left.")
PRICE = Family("price", "histogram", "Prices.", (), (1.0,))


def samples(totals: Totals, family: Family) -> Samples:
    known, found = totals.families[family.name]
    assert known == family
    return found


def test_counters_and_histograms_are_added_up() -> None:
    totals = Totals()
    totals.add([Found(SOLD, ("a",), (1.0,)), Found(PRICE, (), (1.0, 2.0, 9.0))])
    totals.add([Found(SOLD, ("a",), (2.0,)), Found(SOLD, ("b",), (5.0,)), Found(PRICE, (), (0.0, 1.0, 7.0))])
    assert samples(totals, SOLD) == {("a",): [3.0], ("b",): [5.0]}
    assert samples(totals, PRICE) == {(): [1.0, 3.0, 16.0]}


def test_gauges_are_merged_as_they_say() -> None:
    most = Family("most", "gauge", "", merge="max")
    least = Family("least", "gauge", "", merge="min")
    totals = Totals()
    for value in (3.0, 1.0, 2.0):
        totals.add([Found(family, (), (value,)) for family in (LEFT, most, least)])
    assert [samples(totals, family)[()] for family in (LEFT, most, least)] == [[6.0], [3.0], [1.0]]


def test_what_ended_processes_counted_stays_and_their_gauges_go() -> None:
    past, now = Totals(), Totals()
    past.keep([Found(SOLD, ("a",), (2.0,)), Found(LEFT, (), (4.0,))])
    past.keep([Found(SOLD, ("a",), (3.0,))])
    now.add([Found(LEFT, (), (1.0,))])
    now.add(past.found())
    assert samples(now, SOLD) == {("a",): [5.0]}
    assert samples(now, LEFT) == {(): [1.0]}


def test_adding_does_not_change_what_was_added() -> None:
    past = Totals()
    past.keep([Found(SOLD, ("a",), (2.0,))])
    for _ in range(2):
        now = Totals()
        now.add(past.found())
        now.add([Found(SOLD, ("a",), (1.0,))])
        assert samples(now, SOLD) == {("a",): [3.0]}


def test_where_a_metric_was_declared_otherwise_the_newest_is_right() -> None:
    other = Family("sold_total", "counter", "Sold, by shop.", ("shop",))
    totals = Totals()
    totals.add([Found(other, ("x",), (1.0,))])
    totals.add([Found(SOLD, ("a",), (9.0,))])
    assert samples(totals, other) == {("x",): [1.0]}
    past = Totals()
    past.keep([Found(SOLD, ("a",), (9.0,))])
    past.keep([Found(other, ("x",), (1.0,))])
    assert samples(past, other) == {("x",): [1.0]}


def test_series_of_ended_processes_do_not_pile_up() -> None:
    past = Totals()
    for number in range(MOST_KEPT + 20):
        past.keep([Found(SOLD, (str(number),), (1.0,))])
    kept = samples(past, SOLD)
    assert len(kept) == MOST_KEPT + 1
    assert kept[("other",)] == [20.0]
