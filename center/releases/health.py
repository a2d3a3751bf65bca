"""How a release does where it has been offered, and which thresholds that does not hold."""

from dataclasses import dataclass
from math import ceil

from center.settings import RolloutSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a release does with those to whom a stage offered it: totals, never one site's.

    Attributes:
        sites: that were offered it.
        kept: that have ended their trial and keep it.
        went_back: that have ended their trial and went back.
        answers: given while they tried it; 0 where only `kept` and `went_back` are known.
        errors: of these, answers that failed.
        events: that both releases were measured on.
        ndcg_new: mean NDCG@10 of the new release.
        ndcg_old: likewise of the one before.
    """

    sites: int
    kept: float
    went_back: float
    answers: float = 0.0
    errors: float = 0.0
    events: float = 0.0
    ndcg_new: float = 0.0
    ndcg_old: float = 0.0

    @property
    def tried(self) -> float:
        """Sites that have ended their trial, one way or the other."""
        return self.kept + self.went_back

    def faults(self, terms: RolloutSettings) -> list[str]:
        """Which thresholds do not hold; empty: it does well, as far as it is known."""
        found = []
        if self.went_back > terms.max_failure_share * (self.tried if self.tried >= self.needed(terms) else self.sites):
            found.append(f"{self.went_back:.0f} of {self.sites} sites went back")
        if self.errors > terms.max_error_share * self.answers:
            found.append(f"{self.errors:.0f} of {self.answers:.0f} answers failed")
        if self.events >= terms.min_events and self.ndcg_new < (1 - terms.max_ndcg_drop) * self.ndcg_old:
            found.append(f"NDCG@10 fell from {self.ndcg_old:.4f} to {self.ndcg_new:.4f} on {self.events:.0f} events")
        return found

    def needed(self, terms: RolloutSettings) -> int:
        """So many sites must have ended their trial before the release goes on."""
        return min(self.sites, terms.min_answers or ceil(self.sites / 2))

    def to_json(self) -> dict[str, float]:
        names = ("sites", "kept", "went_back", "answers", "errors", "events", "ndcg_new", "ndcg_old")
        return {name: float(getattr(self, name)) for name in names}
