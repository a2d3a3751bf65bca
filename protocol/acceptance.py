"""May this edge take part in an announced round? Asked before anything is computed or used up (SPEC 7.1-7.2)."""

from dataclasses import dataclass

from protocol import cohort, privacy
from protocol.announcement import Announcement
from protocol.epoch_keys import EpochKeys
from protocol.errors import BadSignatureError, PeerMisbehavedError
from protocol.identity import EdgeId, Roster


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far an edge has gone, read from its disk.

    Attributes:
        last_round: the highest round number it has begun, 0 at first.
        last_epoch: the highest center epoch it has seen.
    """

    last_round: int
    last_epoch: int


def check(asked: Announcement, *, me: EdgeId, roster: Roster, keys: EpochKeys, standing: Standing, now_ms: int) -> None:
    """Refuse a round that no honest center announces to this edge.

    Raises:
        PeerMisbehavedError: replayed, expired, of another federation, roster or epoch, or not of this edge's group.
        NotAdmittedError: the cohort names an edge that the roster does not.
        BadSignatureError: it names another prekey than this edge has checked.
        MalformedMessageError: its words leave no room for such a cohort and such noise.
    """
    _check_origin(asked, roster=roster, standing=standing, now_ms=now_ms)
    _check_cohort(asked, me=me, roster=roster)
    _check_keys(asked, me=me, keys=keys)
    _check_numbers(asked)


def _check_origin(asked: Announcement, *, roster: Roster, standing: Standing, now_ms: int) -> None:
    """Is it ours, in force and new?"""
    if asked.federation != roster.federation:
        raise PeerMisbehavedError(f"an announcement of federation {asked.federation} came to {roster.federation}")
    if asked.roster_version != roster.version:
        raise PeerMisbehavedError(f"announced on roster {asked.roster_version}, this edge holds {roster.version}")
    if asked.center_epoch < standing.last_epoch:
        raise PeerMisbehavedError(f"center epoch {asked.center_epoch} is older than the known {standing.last_epoch}")
    if asked.round <= standing.last_round:
        raise PeerMisbehavedError(f"round {asked.round} is not newer than answered round {standing.last_round}")
    if asked.deadline_ms <= now_ms:
        raise PeerMisbehavedError(f"round {asked.round} was over before it arrived; do the clocks agree?")


def _check_cohort(asked: Announcement, *, me: EdgeId, roster: Roster) -> None:
    if me not in asked.cohort:
        raise PeerMisbehavedError(f"{me} is not in the cohort of round {asked.round}")
    if asked.edges < cohort.SMALLEST:
        raise PeerMisbehavedError(f"a cohort of {asked.edges} would show one site to another")
    group = roster.group_of(me)
    for edge in asked.cohort:
        if edge not in group:
            roster.member(edge)  # who is not admitted at all is named as such
            raise PeerMisbehavedError(f"{edge} is not in the group that the roster puts {me} in")


def _check_numbers(asked: Announcement) -> None:
    """Can it be encoded at all? Asked before a round number is used up (SPEC 4.2, 4.9).

    Raises:
        MalformedMessageError: the words leave no headroom for such a cohort and such noise.
    """
    if asked.privacy is not None:
        privacy.variance_of_edge(asked.privacy, layout=asked.layout, edges=asked.edges)
        return
    for segment in asked.layout:
        segment.exponent(asked.edges)


def _check_keys(asked: Announcement, *, me: EdgeId, keys: EpochKeys) -> None:
    """Do all hold the keys that this edge holds (SPEC 5.5)?"""
    if asked.key_epoch != keys.call.epoch:
        raise PeerMisbehavedError(
            f"round {asked.round} is of key epoch {asked.key_epoch}, this edge is in {keys.call.epoch}"
        )
    keys.check_reach(asked.round)
    for edge, digest in zip(asked.cohort, asked.prekeys, strict=True):
        if keys.prekeys.get(edge) != digest:
            raise BadSignatureError(f"the announcement names another prekey of {edge} than this edge has checked")
        if edge != me and edge not in keys.states:
            raise PeerMisbehavedError(f"{edge} and {me} share no keys in epoch {keys.call.epoch}")
