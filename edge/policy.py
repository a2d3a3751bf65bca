"""What this site refuses, whatever the center says: an announcement and numbers in, a refusal or nothing out."""

from edge.settings import PolicySettings
from protocol.errors import RefusedByPolicyError
from protocol.fixed_point import words_of
from protocol.messages import Announcement


def check(announcement: Announcement, *, policy: PolicySettings, answered_today: int) -> None:
    """Refuse a round that this site's operator does not want.

    Args:
        policy: the operator's section of ``edge.toml``.
        answered_today: rounds answered in the last 24 hours.

    Raises:
        RefusedByPolicyError: says which limit, what was asked, and where the limit stands.
    """
    asked = announcement
    if len(asked.cohort) < policy.min_cohort:
        raise _refusal("min_cohort", f"a cohort of {len(asked.cohort)}", f"at least {policy.min_cohort}")
    if asked.purpose.value not in policy.purposes:
        raise _refusal("purposes", f"a round for {asked.purpose.value}", f"only {', '.join(policy.purposes)}")
    if asked.submodel not in policy.submodels:
        raise _refusal("submodels", f"a round of {asked.submodel}", f"only {', '.join(policy.submodels)}")
    if asked.clip > policy.max_clip:
        raise _refusal("max_clip", f"a clip of {asked.clip:g}", f"at most {policy.max_clip:g}")
    if words_of(asked.layout) > policy.max_words:
        raise _refusal("max_words", f"{words_of(asked.layout)} words", f"at most {policy.max_words}")
    if answered_today >= policy.rounds_per_day:
        raise _refusal("rounds_per_day", "one round more", f"{policy.rounds_per_day} in 24 hours")


def _refusal(limit: str, asked: str, allowed: str) -> RefusedByPolicyError:
    return RefusedByPolicyError(
        f"this site's policy refuses {asked}: it allows {allowed}", advice=f"policy.{limit} in edge.toml"
    )
