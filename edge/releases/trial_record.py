"""What became of the newest release at this site: one small file, read when the center asks for a ring's health."""

from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Self

from edge import durable
from protocol import canonical
from protocol.errors import MalformedMessageError

_FILE = "trial.json"


class Outcome(StrEnum):
    """How far a trial has come."""

    ON_TRIAL = "on trial"
    KEPT = "kept"
    WENT_BACK = "went back"
    SUPERSEDED = "superseded"
    """A newer release came before its trial was over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One release's trial in figures; nothing of any user or item.

    Attributes:
        sha256: the bundle's digest, hexadecimal.
        answers: given from this release during its trial.
        errors: of these, those where it failed.
        slow: of these, those slower than the trial bears.
        overlap: mean share of the old release's items that its answers to recent queries hold.
        queries: how many of them; 0: nothing was compared.
        ndcg_new: mean NDCG@10 on the newest baskets of this site.
        ndcg_old: the same of the release before, on the same baskets.
        events: how many baskets; 0: nothing was measured.
    """

    version: int
    sha256: str
    outcome: Outcome
    answers: int = 0
    errors: int = 0
    slow: int = 0
    overlap: float = 0.0
    queries: int = 0
    ndcg_new: float = 0.0
    ndcg_old: float = 0.0
    events: int = 0

    def save(self, directory: Path) -> None:
        """Write it into an edge's folder.

        Raises:
            OSError: the disk is full or not writable; the record before is intact.
        """
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        durable.write(directory / _FILE, canonical.encode({"format": 1, **content}))

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """The newest record of an edge's folder; None: there was no release yet, or the file is damaged."""
        try:
            value = canonical.decode((directory / _FILE).read_bytes())
        except (FileNotFoundError, MalformedMessageError):
            return None
        if not isinstance(value, dict) or value.pop("format", None) != 1:
            return None
        try:
            return cls(**{**value, "outcome": Outcome(str(value.get("outcome")))})
        except (TypeError, ValueError):
            return None
