"""May this candidate be released? What the sites measured, against the thresholds; words for whatever does not hold."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from center.settings import GateSettings
from protocol.errors import MalformedMessageError
from protocol.lessons import EVALUATED, QUALITY

_IN_WORDS = {"all": "all users", "new_users": "new users", "new_items": "new items", "tail": "the tail"}
_DEVIATIONS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How good a candidate is on some events, and what is served now on the same ones.

    Attributes:
        events: held-out baskets, of all sites together.
        ndcg: mean NDCG@10 of the candidate, recall@10 likewise.
        base_ndcg: mean NDCG@10 of what each site serves now; before the first release, of popularity.
    """

    events: float
    ndcg: float
    recall: float
    base_ndcg: float
    base_recall: float

    @classmethod
    def of(cls, sums: Mapping[str, float]) -> Self:
        """From the sums of `lessons.QUALITY`; those of a private round may be noisy, so an event is the least."""
        events = max(sums["events"], 0.0)
        means = {name: max(sums[name], 0.0) / max(events, 1.0) for name in QUALITY if name != "events"}
        return cls(events=events, **means)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateFigures:
    """What the federation says of a candidate.

    Attributes:
        segments: by the names of `lessons.EVALUATED`.
        sites: whose figures are in the sums.
        deviation: standard deviation of the noise in each sum, in events; 0 without noise.
    """

    segments: Mapping[str, Quality]
    sites: int
    deviation: float = 0.0

    def to_json(self) -> dict[str, Any]:
        segments = {name: asdict(quality) for name, quality in self.segments.items()}
        return {"segments": segments, "sites": self.sites, "deviation": self.deviation}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read back.

        Raises:
            MalformedMessageError: these are no such figures.
        """
        try:
            segments = {name: Quality(**value["segments"][name]) for name in EVALUATED}
            return cls(segments=segments, sites=int(value["sites"]), deviation=float(value["deviation"]))
        except (KeyError, TypeError, ValueError) as error:
            raise MalformedMessageError("no figures of a candidate") from error


def check(figures: GateFigures, gate: GateSettings) -> list[str]:
    """The thresholds that do not hold, each in one line; empty: the candidate may be released."""
    everybody = figures.segments["all"]
    if everybody.events < gate.min_events:
        return [f"measured on {everybody.events:.0f} events, {gate.min_events} are needed (gate.min_events)"]
    found = _faults("all", everybody, figures, limit=gate.max_ndcg_drop, setting="max_ndcg_drop")
    for name in EVALUATED[1:]:
        if figures.segments[name].events >= gate.min_segment_events:
            found += _faults(
                name, figures.segments[name], figures, limit=gate.max_segment_drop, setting="max_segment_drop"
            )
    return found


def _faults(name: str, quality: Quality, figures: GateFigures, *, limit: float, setting: str) -> list[str]:
    noise = _DEVIATIONS * figures.deviation / quality.events
    if quality.ndcg >= (1 - limit) * quality.base_ndcg - noise:
        return []
    line = (
        f"NDCG@10 of {_IN_WORDS[name]} falls from {quality.base_ndcg:.4f} to {quality.ndcg:.4f} "
        f"on {quality.events:.0f} events, more than {limit:.0%} (gate.{setting})"
    )
    return [line]
