"""What Prometheus may know: counts and times under a fixed set of labels, nothing of any user or item."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

ROUTES: Final = frozenset(
    {"/v1/events", "/v1/recommendations", "/v1/similar", "/healthz", "/readyz", "/metrics", "/openapi.json"}
)
_BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)
_METHODS = frozenset({"GET", "POST"})


class Metrics:
    """One service's figures in a registry of their own, so that two services in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "hanse_edge_requests",
            "Requests answered.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "hanse_edge_request_seconds",
            "Time from the request's head to the answer's last byte.",
            ("route",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._events = Counter("hanse_edge_events", "Events offered.", ("outcome",), registry=self.registry)
        self._answers = Counter("hanse_edge_answers", "Answers given.", ("rung",), registry=self.registry)
        self._degraded = Counter(
            "hanse_edge_degraded",
            "Answers below the best rung.",
            ("reason",),
            registry=self.registry,
        )
        self._release = Gauge(
            "hanse_edge_release_version",
            "Release being served; 0 before the first.",
            registry=self.registry,
        )

        self._trial = Gauge(
            "hanse_edge_trial_release_version",
            "Release on trial; 0: none.",
            registry=self.registry,
        )
        self._trials = Counter("hanse_edge_trials", "Trials that ended.", ("outcome",), registry=self.registry)
        self._failed = Counter(
            "hanse_edge_answers_failed",
            "Answers in which the release that is served failed.",
            registry=self.registry,
        )

    def note_request(self, path: str, method: str, status: int, seconds: float) -> None:
        # Whatever a caller makes up counts as "other": labels must not grow with traffic.
        route = path if path in ROUTES else "other"
        self._requests.labels(route, method if method in _METHODS else "other", str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def note_events(self, *, added: int, duplicates: int) -> None:
        self._events.labels("added").inc(added)
        self._events.labels("duplicate").inc(duplicates)

    def note_answer(self, rung: str, reasons: Iterable[str]) -> None:
        self._answers.labels(rung).inc()
        for reason in reasons:
            self._degraded.labels(reason).inc()

    def note_release(self, version: int) -> None:
        self._release.set(version)

    def note_failed_answer(self) -> None:
        self._failed.inc()

    def note_trial(self, version: int) -> None:
        self._trial.set(version)

    def note_trial_ended(self, outcome: str) -> None:
        self._trials.labels(outcome).inc()
        self._trial.set(0)

    def page(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
