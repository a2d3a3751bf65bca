"""The report of `hanse-sim bench serving` for people: what was measured beside what it is held to."""

from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console
from rich.table import Table

_ROWS: Final = (
    ("graph: encoder and scan, 10k items, against whole fp32 graph", "pipeline_ratio_10k", "{:.2f}x", "<= 1.0x"),
    ("the same, 100k items of 128", "pipeline_ratio_100k", "{:.2f}x", "<= 0.55x"),
    ("the same, 1M items of 64", "pipeline_ratio_1m", "{:.2f}x", "<= 0.35x"),
    ("overlap of their ten best, worst of the three", "pipeline_overlap", "{:.4f}", ">= 0.995"),
    ("one client, p50, against bare session.run, 10k items", "recommend_p50_ratio", "{:.2f}x", "<= 1.9x"),
    ("the same, 100k items", "recommend_p50_ratio_100k", "{:.2f}x", "<= 1.9x"),
    ("32 clients, per CPU-second, against raw ASGI, 10k items", "recommend_throughput_ratio", "{:.2f}x", ">= 0.95x"),
    ("the same, 100k items", "recommend_throughput_ratio_100k", "{:.2f}x", ">= 0.95x"),
    ("search, words, p50 against bare tantivy", "search_p50_ratio", "{:.2f}x", "<= 3x"),
    ("with meaning and for a user, and session.run", "search_semantic_p50_ratio", "{:.2f}x", "<= 3x"),
    ("events, one a request, on disk, against sqlite3", "event_single_ratio", "{:.2f}x", ">= 0.5x"),
    ("events, 1,000 a request, against executemany", "event_bulk_ratio", "{:.2f}x", ">= 0.8x"),
    ("p99 beside a learner against p99 without", "training_p99_ratio", "{:.2f}x", "<= 2x"),
    ("memory at 100k items", "rss_mb_100k", "{:.0f} MB", "<= 350 MB"),
    ("start to the first good answer", "start_seconds", "{:.2f} s", "<= 2 s"),
    ("a user's last 50 events, of 10M", "history_p50_us", "{:.1f} µs", "<= 40 µs"),
)


def print_report(report: Mapping[str, Any]) -> None:
    """One row a figure."""
    table = Table("figure", "measured", "goal")
    for what, key, form, goal in _ROWS:
        table.add_row(what, form.format(report[key]), goal)
    Console().print(table)
    details = report["details"]
    for name in ("small", "large"):
        told = ", ".join(f"{key} {value:.3f}" for key, value in details[name].items() if isinstance(value, float))
        Console().print(f"{name} shop: {told}", soft_wrap=True)
    told = ", ".join(f"{key} {value:.3f}" for key, value in details["search"].items())
    Console().print(f"search: {told}", soft_wrap=True)
