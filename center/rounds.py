"""Drives one secure sum: announce, wait, close or give up. Owns the deadline; the rules are those of `secure_sum`."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from protocol.errors import MalformedMessageError, PeerMisbehavedError, TooFewSurvivorsError, UntrustedError
from protocol.identity import EdgeId
from protocol.secure_sum import Round
from protocol.transport import Reply, Request, Transport

_log = structlog.get_logger(__name__)
_WAIT_SECONDS = 0.5

Listener = Callable[[EdgeId, int, int], None]
"""Told who answered, how many have, and of how many: for a progress bar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A round that closed.

    Attributes:
        upload_bytes: what the edges sent, all together.
    """

    round: Round
    upload_bytes: int


def run_round(
    round_: Round,
    *,
    announcement: bytes,
    weights: bytes,
    transport: Transport,
    now_ms: Callable[[], int],
    stopped: Callable[[], bool],
    heard: Listener = lambda _edge, _answered, _asked: None,
) -> Outcome:
    """Ask the cohort and wait until everyone has answered or the deadline has passed.

    Args:
        announcement: the signed announcement.
        weights: what the edges train from, or nothing.
        stopped: asked between two waits; a center that is told to stop gives the round up.

    Raises:
        TooFewSurvivorsError: an edge refused, failed, misbehaved or did not answer in time; all are named.
        UnavailableError: the transport is away.
    """
    cohort = round_.announcement.cohort
    request = Request(action="masked-update", announcement=announcement, weights=weights)
    transport.send(dict.fromkeys(cohort, request))
    upload = 0
    failures: dict[EdgeId, str] = {}
    try:
        while set(round_.missing) - set(failures) and now_ms() < round_.announcement.deadline_ms and not stopped():
            for edge, reply in transport.receive(timeout=_WAIT_SECONDS):
                upload += len(reply.body or b"")
                before = round_
                round_, failure = _take(round_, edge, reply)
                if failure:
                    failures[edge] = failure
                elif round_ is not before:
                    heard(edge, len(round_.heard), len(cohort))
    finally:
        transport.forget()  # or the next round would be charged with an answer to this one
    if failures:
        failures |= {edge: "no masked update" for edge in round_.missing if edge not in failures}
        why = "; ".join(f"{edge}: {reason}" for edge, reason in sorted(failures.items()))
        raise TooFewSurvivorsError(
            f"round {round_.announcement.round}: {why}",
            missing=failures,
            advice="the next round runs without them",
        )
    return Outcome(round=round_.close(), upload_bytes=upload)


def _take(round_: Round, edge: EdgeId, reply: Reply) -> tuple[Round, str]:
    """The round with one reply more, or why that reply is worth nothing."""
    if reply.body is None:
        return round_, reply.error or "no answer"
    try:
        return round_.receive(edge, reply.body), ""
    except (PeerMisbehavedError, MalformedMessageError, UntrustedError) as error:
        _log.warning("masked update refused", edge=edge, round=round_.announcement.round, why=str(error))
        return round_, str(error)
