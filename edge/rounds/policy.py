"""What this site refuses, whatever the center says: announcement and numbers in, a refusal or nothing out."""

from edge.settings import PolicySettings
from protocol import cohort
from protocol.announcement import Announcement, Purpose
from protocol.errors import PeerMisbehavedError, RefusedByPolicyError
from protocol.fixed_point import words_of


def check(announcement: Announcement, *, policy: PolicySettings, robust: bool, answered_today: int) -> None:
    """Refuse a round that this site's operator does not want.

    Args:
        policy: the operator's section of ``edge.toml``.
        robust: the roster cuts the federation into groups whose sums the center sees.
        answered_today: rounds answered in the last 24 hours.

    Raises:
        RefusedByPolicyError: says which limit, what was asked, and where the limit stands.
    """
    _check_company(announcement, policy=policy, robust=robust)
    _check_numbers(announcement, policy=policy)
    if announcement.purpose.value not in policy.purposes:
        raise _refusal("purposes", f"a round for {announcement.purpose.value}", f"only {', '.join(policy.purposes)}")
    if announcement.submodel not in policy.submodels:
        raise _refusal("submodels", f"a round of {announcement.submodel}", f"only {', '.join(policy.submodels)}")
    if policy.require_noise and announcement.privacy is None:
        raise _refusal("require_noise", "a round without noise", "only rounds under differential privacy")
    if answered_today >= policy.rounds_per_day:
        raise _refusal("rounds_per_day", "one round more", f"{policy.rounds_per_day} in 24 hours")


def _check_company(asked: Announcement, *, policy: PolicySettings, robust: bool) -> None:
    limit, least, honest = "min_cohort", policy.min_cohort, policy.min_honest
    if asked.purpose is Purpose.HEALTH:  # a ring is as small as it is; in the sum are totals of a trial
        limit, least, honest = "min_ring", policy.min_ring, min(honest, policy.min_ring - policy.max_colluders)
    if asked.edges < least:
        raise _refusal(limit, f"a cohort of {asked.edges}", f"at least {least}")
    try:
        cohort.check_colluders(asked.edges, max_colluders=policy.max_colluders, min_honest=honest)
    except PeerMisbehavedError as error:
        raise RefusedByPolicyError(
            f"this site's policy refuses a cohort of {asked.edges}: {error}",
            advice="policy.max_colluders and policy.min_honest in edge.toml",
        ) from error
    if robust and not policy.groups:
        raise _refusal("groups", "sums of single groups", "only sums of a whole cohort")
    if asked.privacy is not None and asked.privacy.colluders < policy.max_colluders:
        raise _refusal(
            "max_colluders",
            f"noise against {asked.privacy.colluders} colluders",
            f"noise against at least {policy.max_colluders}",
        )


def _check_numbers(asked: Announcement, *, policy: PolicySettings) -> None:
    if asked.clip > policy.max_clip:
        raise _refusal("max_clip", f"a clip of {asked.clip:g}", f"at most {policy.max_clip:g}")
    if asked.weight_cap > policy.max_weight_cap:
        raise _refusal("max_weight_cap", f"a weight cap of {asked.weight_cap}", f"at most {policy.max_weight_cap}")
    if words_of(asked.layout) > policy.max_words:
        raise _refusal("max_words", f"{words_of(asked.layout)} words", f"at most {policy.max_words}")


def _refusal(limit: str, asked: str, allowed: str) -> RefusedByPolicyError:
    return RefusedByPolicyError(
        f"this site's policy refuses {asked}: it allows {allowed}", advice=f"policy.{limit} in edge.toml"
    )
