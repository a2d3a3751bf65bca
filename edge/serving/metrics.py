"""What Prometheus may know: counts and times under a fixed set of labels, nothing of any user or item."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)


class RouteFigures:
    """How the requests of one route and method went. Its counters are looked up once, not at each request."""

    __slots__ = ("_by_status", "_counter", "_observe")

    def __init__(self, counter: Callable[[str], Counter], observe: Callable[[float], None]) -> None:
        self._counter, self._observe = counter, observe
        self._by_status: dict[int, Counter] = {}

    def note(self, status: int, seconds: float) -> None:
        """One request was answered."""
        counted = self._by_status.get(status)
        if counted is None:
            counted = self._by_status[status] = self._counter(str(status))
        counted.inc()
        self._observe(seconds)


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
        self._inside = Gauge(
            "hanse_edge_requests_in_flight", "Requests let in and not yet answered.", ("lane",), registry=self.registry
        )
        self._shed = Counter(
            "hanse_edge_requests_shed",
            "Requests sent away, for there was too much to do.",
            ("lane",),
            registry=self.registry,
        )
        self._tills = Counter(
            "hanse_edge_till_events", "Events that tills sent over MQTT.", ("outcome",), registry=self.registry
        )
        self._tills_heard = Gauge(
            "hanse_edge_tills_heard", "1: the tills' broker is heard; 0: not, or there is none.", registry=self.registry
        )
        self._process = ProcessCollector(registry=self.registry)  # memory, CPU seconds, open files
        self._events = Counter("hanse_edge_events", "Events offered.", ("outcome",), registry=self.registry)
        self._answers = Counter("hanse_edge_answers", "Answers given.", ("rung",), registry=self.registry)
        self._degraded = Counter(
            "hanse_edge_degraded",
            "Answers below the best rung.",
            ("reason",),
            registry=self.registry,
        )
        self._events_behind = Gauge(
            "hanse_edge_following_events_behind",
            "Events that a derived book has not counted yet.",
            ("book",),
            registry=self.registry,
        )
        self._seconds_behind = Gauge(
            "hanse_edge_following_seconds_behind",
            "For how long there have been such.",
            ("book",),
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
        searches = Counter("hanse_edge_searches", "Searches answered.", ("outcome",), registry=self.registry)
        self._searches = {True: searches.labels("found"), False: searches.labels("nothing")}
        self._search_gaps = Counter(
            "hanse_edge_search_degraded",
            "Searches answered less well than could be.",
            ("reason",),
            registry=self.registry,
        )
        self._trials = Counter("hanse_edge_trials", "Trials that ended.", ("outcome",), registry=self.registry)
        self._failed = Counter(
            "hanse_edge_answers_failed",
            "Answers in which the release that is served failed.",
            registry=self.registry,
        )
        self._submodels = Gauge(
            "hanse_edge_submodel_state",
            "Whether a submodel is asked: 0 it is, 1 it is tried again after failures, 2 it is left alone.",
            ("submodel",),
            registry=self.registry,
        )

    def of_route(self, route: str, method: str) -> RouteFigures:
        """Figures of one route.

        Args:
            route: a template out of the table of routes, never a caller's path: labels must not grow with traffic.
        """
        return RouteFigures(
            lambda status: self._requests.labels(route, method, status), self._seconds.labels(route).observe
        )

    def of_lane(self, lane: str, *, inside: Callable[[], float]) -> Callable[[], None]:
        """Figures of one lane.

        Args:
            inside: how many are in it; asked at each scrape, so that it costs nothing between scrapes.

        Returns:
            Counts one that was sent away.
        """
        self._inside.labels(lane).set_function(inside)
        return self._shed.labels(lane).inc

    def note_events(self, *, added: int, duplicates: int) -> None:
        self._events.labels("added").inc(added)
        self._events.labels("duplicate").inc(duplicates)

    def note_till_events(self, outcome: str, number: int) -> None:
        self._tills.labels(outcome).inc(number)

    def note_tills_heard(self, heard: bool) -> None:  # noqa: FBT001 - it is what is noted
        self._tills_heard.set(heard)

    def note_answer(self, rung: str, reasons: Iterable[str]) -> None:
        self._answers.labels(rung).inc()
        for reason in reasons:
            self._degraded.labels(reason).inc()

    def note_search(self, *, found: bool, gaps: Iterable[str]) -> None:
        """A search was answered; whether anything fits, and why it is not as good as it could be."""
        self._searches[found].inc()
        for gap in gaps:
            self._search_gaps.labels(gap).inc()

    def note_submodel(self, name: str, state: int) -> None:
        self._submodels.labels(name).set(state)

    def note_following(self, book: str, events: int, seconds: float) -> None:
        """How far a derived book is behind the events: how many, and since when."""
        self._events_behind.labels(book).set(events)
        self._seconds_behind.labels(book).set(seconds)

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
