"""Asks the sites what a release is worth: sums over many of them, never one site's figures (SPEC 4.10).

An answer is on disk before anybody acts on it: edges answer a question once, and a center that was killed asks again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from math import sqrt
from pathlib import Path
from typing import Any, Self

from center import durable
from center.releases.gate import GateFigures, Quality
from center.rounds.calling import Answer, Asked, Caller
from center.rounds.federation import Federation
from center.rounds.gathering import Company
from center.settings import CenterSettings
from protocol import canonical, cohort, lessons
from protocol.announcement import Purpose
from protocol.errors import MalformedMessageError, TooFewSurvivorsError
from protocol.fixed_point import Layout
from protocol.identity import EdgeId
from protocol.privacy import variance_of_sum

_ATTEMPTS = 3
_MOST_ATTEMPTS = 10_000
_MOST_TRIES = 10
_STANDING = ("reached", "kept", "went_back")


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthFigures:
    """How a release does at the sites of a ring.

    Attributes:
        sites: whose word is in the sum.
        reached: that have it, or had it; of these `kept` and `went_back` have ended their trial.
        answers: given by it while it was on trial; of these `errors` failed and `slow` were too slow.
        queries: asked of both releases; `overlap` is the mean share of the old answer in the new one.
        events: held-out baskets that both were measured on; `ndcg_new` and `ndcg_old` are sums of NDCG@10 over them.
    """

    sites: int
    reached: float
    kept: float
    went_back: float
    answers: float
    errors: float
    slow: float
    queries: float
    overlap: float
    events: float
    ndcg_new: float
    ndcg_old: float

    @classmethod
    def of(cls, sums: Mapping[str, float], *, sites: int) -> Self:
        """From the sums of `lessons.HEALTH`."""
        overlap = sums["overlap"] / max(sums["queries"], 1.0)
        return cls(sites=sites, **{**sums, "overlap": overlap})


class Figures:
    """Puts questions about releases. From one thread with campaigns: see `Surroundings.between`."""

    def __init__(
        self, folder: Path, *, federation: Federation, settings: CenterSettings, submodel: str = "recommend"
    ) -> None:
        """Ask in the name of this federation.

        Args:
            folder: keeps what was asked and answered, a folder below it for each release.
        """
        self._folder = folder
        self._federation = federation
        self._settings = settings
        self._submodel = submodel

    def ask_gate(self, version: int) -> GateFigures:
        """How good a candidate is at the sites, and what they serve now; asked again, the same figures.

        Raises:
            TooFewSurvivorsError: too few sites have it, or are there, for now.
            UnavailableError: the transport is away.
            StoppedError: told to stop; nothing is lost.
        """
        place = self._place(version) / "gate-figures.json"
        if place.exists():
            return GateFigures.from_json(canonical.decode(place.read_bytes()))
        asked = Asked(
            purpose=Purpose.EVALUATE,
            layout=lessons.evaluation_layout(private_bound=self._settings.private_bound),
            notes=self._place(version) / "gate.json",
            window=version,
            training={"release": float(version)},
            company=Company(patient=False),
            attempts=_ATTEMPTS,
        )
        caller = self._caller(version)
        answer = caller.until_summed(asked)
        unit = lessons.evaluation_unit(self._settings.privacy.announced())
        segments = {
            name: Quality.of(dict(zip(lessons.QUALITY, (sums / unit).tolist(), strict=True)))
            for name, sums in answer.sums.items()
        }
        figures = GateFigures(
            segments=segments, sites=answer.edges, deviation=self._deviation(answer, asked.layout) / unit
        )
        durable.write(place, canonical.encode(figures.to_json()))
        caller.note(answer, {"events": segments["all"].events, "ndcg": segments["all"].ndcg})
        caller.settle(asked.notes)
        return figures

    def ask_health(self, version: int, edges: Iterable[EdgeId], *, attempt: int) -> HealthFigures:
        """How a release does at these sites; asked again with the same attempt, the same figures.

        A site says how its trial went once, and from then on only how it ended. So what these sites said at earlier
        attempts is added.

        Args:
            attempt: rises over all stages of the release, from 1 on.

        Raises:
            TooFewSurvivorsError: too few of them are there for now.
            UnavailableError: the transport is away.
            StoppedError: told to stop; nothing is lost.
            ValueError: so many attempts are not made.
        """
        if not 0 < attempt < _MOST_ATTEMPTS:
            raise ValueError(f"attempt {attempt}")
        among = frozenset(edges)
        place = self._place(version) / f"health-figures-{attempt}.json"
        if not place.exists():
            self._ask_health(version, among, attempt=attempt, place=place)
        told = [_Told.read(path) for path in self._place(version).glob("health-figures-*.json")]
        newest = next(one for one in told if one.attempt == attempt)
        sums = dict(newest.sums)
        for one in told:
            if one.attempt < attempt and one.among == newest.among:
                sums |= {name: sums[name] + value for name, value in one.sums.items() if name not in _STANDING}
        return HealthFigures.of(sums, sites=newest.sites)

    def _ask_health(self, version: int, among: frozenset[EdgeId], *, attempt: int, place: Path) -> None:
        # A question that was opened in vain is answered for ever; then the same is asked in another window.
        tries = (self._place(version) / f"health-{attempt}-{number}.json" for number in range(_MOST_TRIES))
        number, notes = next(
            ((number, notes) for number, notes in enumerate(tries) if not Caller.may_be_opened(notes)), (0, None)
        )
        if notes is None:
            raise TooFewSurvivorsError(f"{_MOST_TRIES} questions of attempt {attempt} were opened in vain")
        asked = Asked(
            purpose=Purpose.HEALTH,
            layout=lessons.health_layout(),
            notes=notes,
            window=(version * _MOST_ATTEMPTS + attempt) * _MOST_TRIES + number,
            training={"release": float(version)},
            company=Company(among=among, fewest=cohort.SMALLEST, patient=False),
            plainly=True,
            attempts=_ATTEMPTS,
        )
        caller = self._caller(version)
        answer = caller.until_summed(asked)
        sums = {name: float(total[0]) for name, total in answer.sums.items()}
        told = _Told(attempt=attempt, among=tuple(sorted(among)), sites=answer.edges, sums=sums)
        durable.write(place, canonical.encode(asdict(told)))
        caller.note(answer, {name: sums[name] for name in _STANDING})
        caller.settle(asked.notes)

    def _place(self, version: int) -> Path:
        return self._folder / f"release-{version}"

    def _caller(self, version: int) -> Caller:
        return Caller(
            campaign=f"release-{version}",
            submodel=self._submodel,
            federation=self._federation,
            settings=self._settings.rounds,
            privacy=self._settings.privacy,
        )

    def _deviation(self, answer: Answer, layout: Layout) -> float:
        """Of the noise in each summed word, in the units of the vector."""
        privacy = self._settings.privacy.announced()
        if privacy is None:
            return 0.0
        total = 0.0
        for edges in answer.asked:
            variance = variance_of_sum(privacy, layout=layout, edges=edges)
            total += variance * 4.0 ** -layout[0].exponent(edges, noise=variance)
        return sqrt(total)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What one attempt brought."""

    attempt: int
    among: tuple[str, ...]
    sites: int
    sums: Mapping[str, float]

    @classmethod
    def read(cls, path: Path) -> Self:
        value: Any = canonical.decode(path.read_bytes())
        try:
            told = cls(**value)
            return replace(
                told, among=tuple(told.among), sums={name: float(told.sums[name]) for name in lessons.HEALTH}
            )
        except (KeyError, TypeError, ValueError) as error:
            raise MalformedMessageError(f"{path} holds no figures") from error
