"""What an operator decides beforehand: the arms and what they change, on whom, and by what measure.

The first arm is the control. Shares are shares of all units of the layer; what is left over is in no arm and gets what
the shop gives everybody.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, PositiveInt, TypeAdapter, ValidationError

from edge.arranging.scenario import Scenario
from edge.records.events import LONGEST_NAME
from edge.serving.filters import STRICT
from protocol.errors import BadInputError

BUCKETS: Final = 10_000
"""A share is so many ten-thousandths."""
SEARCH: Final = "search"
"""Stands among the scenarios for `/v1/search`."""
MOST_ARMS: Final = 8
MOST_METRICS: Final = 8
DAY_MS: Final = 86_400_000
_CLOSE = 1e-9
_SCENARIO: Final = TypeAdapter(Scenario)
_Short = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^/\x00-\x1f\x7f]+$")]


class Unit(StrEnum):
    """Who is given an arm and keeps it."""

    USER = "user"
    """A user; an anonymous visitor until it is known who that is."""
    SESSION = "session"
    """One visit. Only requests that name a session take part."""


class Kind(StrEnum):
    """What a metric counts after a unit was first exposed."""

    CONVERSION = "conversion"
    """1 for a unit that bought something, else 0."""
    REVENUE = "revenue"
    """Sum of quantity times the item's present price over what a unit bought."""
    CLICKS = "clicks"
    """Clicks of a unit, divided by how often it was exposed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What is compared.

    Attributes:
        days: after its first exposure a unit's events count for so long.
        cap: a unit counts with so much at most; fixed before the first unit is seen.
    """

    __pydantic_config__ = STRICT

    name: _Short
    kind: Kind
    days: Annotated[int, Field(ge=1, le=90)] = 14
    cap: Annotated[float | None, Field(gt=0, le=1e9, description="Required for revenue; clicks: 5.")] = None

    @property
    def ceiling(self) -> float:
        """The most that one unit counts with."""
        return 1.0 if self.kind is Kind.CONVERSION else self.cap or 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Searching:
    """What an arm changes in search; None: as the shop has it."""

    __pydantic_config__ = STRICT

    semantic: bool | None = None
    personal: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class What:
    """What an arm changes; what it does not name stays as the shop has it.

    Attributes:
        scenario: answer as this scenario does.
        overrides: settings of the scenario that are others, as they stand in a scenario: filter, boosts, diversity, ...
        fusion: how several voices become one list; short for an override.
        release: answer from this release, if it is served or installed here.
    """

    __pydantic_config__ = STRICT

    scenario: Annotated[str | None, Field(min_length=1, max_length=LONGEST_NAME)] = None
    overrides: Annotated[Mapping[str, Any], Field(max_length=64)] = field(default_factory=dict)
    fusion: Literal["weights", "votes"] | None = None
    search: Searching | None = None
    release: PositiveInt | None = None

    def scenario_from(self, base: Scenario) -> Scenario:
        """A scenario with what this changes in it.

        Raises:
            BadInputError: that would be no scenario.
        """
        changed = {**self.overrides, **({"fusion": self.fusion} if self.fusion else {})}
        if not changed:
            return base
        if "name" in changed:
            raise BadInputError("an arm's overrides cannot rename a scenario", advice="say scenario beside them")
        try:
            return _SCENARIO.validate_python(
                {**_SCENARIO.dump_python(base, mode="json", exclude_defaults=True), **changed}
            )
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise BadInputError(f"an arm's overrides make no scenario: {place}: {first['msg']}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One alternative.

    Attributes:
        share: of all units of the layer, in steps of 0.0001.
    """

    __pydantic_config__ = STRICT

    name: _Short
    share: Annotated[float, Field(gt=0, le=1)]
    what: What = What()

    @property
    def buckets(self) -> int:
        """The share in ten-thousandths."""
        return round(self.share * BUCKETS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """What an operator decides beforehand.

    Attributes:
        layer: experiments of one layer never share a unit; of several layers, the first by name answers.
        scenarios: where it applies; `search` is one. Empty: wherever something is recommended or searched.
        planned_units: where the interval that holds at every look is narrowest; a guess is good enough.
        start_ms: nobody is exposed before; None: at once.
        end_ms: nobody is exposed from here on; None: until it is stopped.
    """

    arms: tuple[Arm, ...]
    metrics: tuple[Metric, ...]
    unit: Unit = Unit.USER
    layer: str = "shop"
    scenarios: tuple[str, ...] = ()
    planned_units: int = 10_000
    start_ms: int | None = None
    end_ms: int | None = None

    def check(self) -> Self:
        """The design itself, if it can be carried out.

        Raises:
            BadInputError: arms or metrics have the same name, a share is no multiple of 0.0001, the shares are more
                than everybody, revenue has no cap, or it ends before it starts.
        """
        for what, names in (("arm", [arm.name for arm in self.arms]), ("metric", [one.name for one in self.metrics])):
            if twice := {name for name in names if names.count(name) > 1}:
                raise BadInputError(f"two {what}s are called {min(twice)}")
        for arm in self.arms:
            if not arm.buckets or abs(arm.share * BUCKETS - arm.buckets) > _CLOSE * BUCKETS:
                raise BadInputError(f"the share of arm {arm.name} is {arm.share:g}, not a multiple of 0.0001")
        if self.buckets > BUCKETS:
            raise BadInputError(f"the shares of the arms add up to {self.buckets / BUCKETS:g}, which is more than 1")
        for metric in self.metrics:
            if metric.kind is Kind.REVENUE and metric.cap is None:
                raise BadInputError(f"metric {metric.name} has no cap", advice="say how much one unit may count with")
        if self.start_ms is not None and self.end_ms is not None and self.end_ms <= self.start_ms:
            raise BadInputError("the experiment ends before it starts")
        return self

    @property
    def buckets(self) -> int:
        """How much of the layer it takes, in ten-thousandths."""
        return sum(arm.buckets for arm in self.arms)

    @property
    def releases(self) -> set[int]:
        """Versions that its arms name."""
        return {arm.what.release for arm in self.arms if arm.what.release is not None}

    @property
    def longest_ms(self) -> int:
        """So long after the last exposure something may still count."""
        return max(metric.days for metric in self.metrics) * DAY_MS


_WHAT: Final = TypeAdapter(What)


def plainly(what: What) -> dict[str, Any]:
    """What an arm changes, and nothing else."""
    changed: dict[str, Any] = _WHAT.dump_python(what, mode="json", exclude_defaults=True)
    return changed
