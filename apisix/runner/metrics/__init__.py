"""Metrics: numbers that a monitoring system collects. Plugins count with `Counter`, `Gauge` and `Histogram`.

What each module is for: `region` keeps a process's numbers where the supervisor can read them, `metric` is what plugins
use, `totals` adds up several processes, `text` writes the format that Prometheus reads.

Example:
    >>> from apisix.runner.metrics import Counter
    >>> CHECKED = Counter("tokens_checked", "Tokens that were checked, by result.", labels=("result",))
    >>> CHECKED.labels(result="good").inc()
"""

from apisix.runner.metrics.metric import Counter, Gauge, Histogram

__all__ = ["Counter", "Gauge", "Histogram"]
