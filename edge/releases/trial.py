"""Is the release on trial good enough to stay? Thresholds over figures of this site, pure (SPEC 9.11)."""

from dataclasses import dataclass

from edge.settings import TrialSettings

FEWEST_QUERIES = 16
"""Fewer recent queries say nothing of how much two releases agree."""
FEWEST_BASKETS = 50
NEVER_SLOW_SECONDS = 0.02
"""A 99th percentile below this is fast, whatever the one before was."""
_SURE = 2.0  # standard errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a trial has shown so far; a count of 0 means: not measured.

    Attributes:
        answers: given from the new release, `errors` of which failed.
        slow: of them, those that took longer than the trial bears; counted, not judged.
        p99: seconds, 99th percentile of its answers.
        answers_before: whose 99th percentile `p99_before` is, given from the old release.
        overlap: mean share of the old release's items in the new one's answers to the same recent queries.
        ndcg_new: mean NDCG@10 on this site's newest baskets; `ndcg_old` is the old release's on the same ones.
        ndcg_spread: standard error of the mean difference, basket by basket.
    """

    answers: int = 0
    errors: int = 0
    slow: int = 0
    p99: float = 0.0
    answers_before: int = 0
    p99_before: float = 0.0
    queries: int = 0
    overlap: float = 0.0
    baskets: int = 0
    ndcg_new: float = 0.0
    ndcg_old: float = 0.0
    ndcg_spread: float = 0.0


def slow_seconds(p99_before: float, limits: TrialSettings) -> float:
    """From how many seconds on an answer is slow, where the old release's 99th percentile was this."""
    return limits.max_p99_ratio * max(p99_before, NEVER_SLOW_SECONDS)


def why_not(figures: Figures, limits: TrialSettings) -> str:
    """Why the release must go, in one line with the figures; empty: nothing speaks against it so far."""
    findings = (
        _errors(figures, limits),
        _slowness(figures, limits),
        _strangeness(figures, limits),
        _quality(figures, limits),
    )
    return "; ".join(finding for finding in findings if finding)


def _errors(figures: Figures, limits: TrialSettings) -> str:
    # Measured against the fewest answers while there are fewer: what exceeds their share already needs no more proof.
    borne = limits.max_error_share * max(figures.answers, limits.min_answers)
    if figures.errors <= borne:
        return ""
    return f"{figures.errors} of {figures.answers} answers failed, {limits.max_error_share:.1%} may"


def _slowness(figures: Figures, limits: TrialSettings) -> str:
    if min(figures.answers, figures.answers_before) < limits.min_answers:
        return ""
    if figures.p99 <= slow_seconds(figures.p99_before, limits):
        return ""
    return (
        f"one answer in a hundred takes {1000 * figures.p99:.0f} ms, {1000 * figures.p99_before:.0f} ms before; "
        f"{limits.max_p99_ratio:g} times is borne"
    )


def _strangeness(figures: Figures, limits: TrialSettings) -> str:
    if figures.queries < FEWEST_QUERIES or figures.overlap >= limits.min_overlap:
        return ""
    return f"its answers share {figures.overlap:.1%} with those before, {limits.min_overlap:.1%} is the least"


def _quality(figures: Figures, limits: TrialSettings) -> str:
    if figures.baskets < FEWEST_BASKETS:
        return ""
    lost = figures.ndcg_old - figures.ndcg_new
    if lost <= limits.max_ndcg_drop * figures.ndcg_old or lost <= _SURE * figures.ndcg_spread:
        return ""
    return (
        f"NDCG@10 on {figures.baskets} baskets of this site falls from {figures.ndcg_old:.4f} to "
        f"{figures.ndcg_new:.4f}, by more than {limits.max_ndcg_drop:.1%}"
    )
