"""Which of the two slots serves, which is on trial, what was refused: one small file, replaced as a whole (SPEC 9.11).

Every step from one standing to the next is one rename on disk, so there is no moment in which two of them hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from protocol import canonical
from protocol.errors import MalformedMessageError, OutOfTurnError

OTHER: Mapping[str, str] = {"a": "b", "b": "a"}
MOST_REFUSED = 32
_MOST_PROVEN = 4
_LONGEST_WHY = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class OnTrial:
    """What is being tried out.

    Attributes:
        slot: a or b, never the committed one.
        since_ms: UTC, when the trial was begun.
        starts: starts of this process that had this trial and have not ended in good order.
    """

    slot: str
    version: int
    sha256: str
    since_ms: int
    starts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A release that this edge has gone back from and does not try again in its era."""

    version: int
    sha256: str
    why: str
    era: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the two slots stand.

    Attributes:
        committed: a or b; empty before the first commit.
        refused: newest last, at most 32.
        proven: digests of bundles that were committed here, newest last: these need no second trial.
    """

    committed: str = ""
    trial: OnTrial | None = None
    refused: tuple[Refusal, ...] = ()
    proven: tuple[str, ...] = ()

    def refusal_of(self, version: int, *, era: int = 1) -> Refusal | None:
        wanted = (version, era)
        return next((refusal for refusal in self.refused if (refusal.version, refusal.era) == wanted), None)

    def begin(self, trial: OnTrial) -> Self:
        """Put the idle slot on trial.

        Raises:
            OutOfTurnError: there is a trial already, or the slot serves.
        """
        if self.trial is not None:
            raise OutOfTurnError(f"release {self.trial.version} is on trial already")
        if trial.slot == self.committed:
            raise OutOfTurnError(f"slot {trial.slot} serves, it cannot be tried out")
        return replace(self, trial=trial)

    def start(self) -> Self:
        """The process has started once more."""
        return self._with_starts(1)

    def rest(self) -> Self:
        """The process ends in good order, which is no crash."""
        return self._with_starts(-1)

    def commit(self, slot: str, sha256: str) -> Self:
        """From now on this slot serves; a trial ends with it."""
        others = tuple(known for known in self.proven if known != sha256)
        return replace(self, committed=slot, trial=None, proven=(*others, sha256)[-_MOST_PROVEN:])

    def end_trial(self) -> Self:
        """The committed slot serves again; nothing is held against the other."""
        return replace(self, trial=None)

    def refuse(self, refusal: Refusal) -> Self:
        """Remember a release that is not to be tried again; if it is on trial, the trial is over."""
        name = (refusal.version, refusal.era)
        kept = tuple(known for known in self.refused if (known.version, known.era) != name)
        refused = (*kept, replace(refusal, why=refusal.why[:_LONGEST_WHY]))[-MOST_REFUSED:]
        trial = None if self.trial and self.trial.version == refusal.version else self.trial
        return replace(self, refused=refused, trial=trial)

    def to_bytes(self) -> bytes:
        trial = self.trial
        return canonical.encode(
            {
                "format": 1,
                "committed": self.committed,
                "trial": None if trial is None else _to_json(trial),
                "refused": [_to_json(refusal) for refusal in self.refused],
                "proven": list(self.proven),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode.

        Raises:
            MalformedMessageError: not such a file.
        """
        match canonical.decode(data):
            case {
                "format": 1,
                "committed": "a" | "b" | "" as committed,
                "trial": None | dict() as trial,
                "refused": list(refused),
                "proven": list(proven),
            }:
                try:
                    return cls(
                        committed=committed,
                        trial=None if trial is None else OnTrial(**trial),
                        refused=tuple(Refusal(**refusal) for refusal in refused),
                        proven=tuple(str(sha256) for sha256 in proven),
                    )
                except TypeError as error:
                    raise MalformedMessageError(f"the standing of the slots cannot be read: {error}") from error
            case _:
                raise MalformedMessageError("the standing of the slots cannot be read")

    def _with_starts(self, more: int) -> Self:
        if self.trial is None:
            return self
        return replace(self, trial=replace(self.trial, starts=max(0, self.trial.starts + more)))


def _to_json(row: OnTrial | Refusal) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}
