"""How large a cohort is, and how many of it must go on (SPEC 6.1-6.4). The edges compute this; nobody announces it."""

from protocol.errors import PeerMisbehavedError

SMALLEST = 3
"""With two, each would learn the other's update by taking away its own."""
LARGEST = 200
"""The mask graph is complete, so its cost grows with the square; a larger federation is cut into cohorts."""
SMALLEST_GROUP = 8
"""A group of a robust aggregation is a cohort of its own, so it has to be one that survives dropouts."""
FEWEST_GROUPS = 3
"""A trimmed mean of two groups trims nothing."""


def threshold(edges: int) -> int:
    """How many of a cohort of n must sign and unmask: t = floor(2n / 3) + 1 (SPEC 6.2).

    Two survivor sets with t signatures each would share more than n / 3 signers, so one of them honest if less than a
    third collude; and an honest edge signs one.
    """
    return 2 * edges // 3 + 1


def check_colluders(edges: int, *, max_colluders: int, min_honest: int) -> None:
    """Is this cohort safe if so many of it conspire with the center (SPEC 6.3)?

    Raises:
        PeerMisbehavedError: more than a third could conspire, or too few honest edges would be summed.
    """
    if edges < 3 * max_colluders:
        raise PeerMisbehavedError(f"in a cohort of {edges}, {max_colluders} colluders would be more than a third")
    honest = threshold(edges) - max_colluders
    if honest < min_honest:
        raise PeerMisbehavedError(
            f"a cohort of {edges} may sum only {honest} honest edges, this site wants {min_honest}"
        )


def abandonments_needed(edges: int, *, max_colluders: int) -> int:
    """How many edges must have given a round up before nobody can open it any more (SPEC 8.3).

    Of a abandonments, m may be lies; n - a edges have given none. Fewer than t can still unmask if n - a + m < t.
    """
    return edges - threshold(edges) + max_colluders + 1
