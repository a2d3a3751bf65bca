"""Opens key epochs: three short exchanges, after which every pair of edges has a secret of its own (SPEC 5.1-5.4).

The center carries what the edges sign and seal for one another. It can leave somebody out, and read nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from center.registry import Registry
from center.rounds.exchange import Exchange
from protocol import binary, canonical
from protocol.epoch import EpochCall, PairRoot, Prekey
from protocol.epoch_keys import MOST_STEPS_AHEAD
from protocol.errors import FederationError
from protocol.identity import EdgeId, Roster
from protocol.transport import Action, Request

_log = structlog.get_logger(__name__)
_HOUR_MS = 60 * 60 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEpoch:
    """An epoch that has been opened.

    Attributes:
        prekeys: SHA-256 of the signed prekey of each edge that took part.
        members: edges that have said they hold the roots of all others.
    """

    call: EpochCall
    opened_ms: int
    prekeys: Mapping[EdgeId, bytes]
    members: frozenset[EdgeId]


@dataclass(slots=True)
class InForce:
    """The epoch in force; an edge is in one at a time, so all questions of a center share it."""

    epoch: KeyEpoch | None = None


@dataclass(slots=True, kw_only=True)
class Epochs:
    """Opens an epoch whenever the one in force does not do.

    Attributes:
        hours: after which a new one begins, so that recorded rounds stay closed when keys are stolen later.
    """

    registry: Registry
    center_epoch: int
    center_key: Ed25519PrivateKey
    exchange: Exchange
    hours: float
    now_ms: Callable[[], int]
    in_force: InForce = field(default_factory=InForce)

    def covering(self, edges: frozenset[EdgeId], roster: Roster) -> KeyEpoch:
        """An epoch that all of these are in, as far as they answer; a new one if the one in force does not do.

        Raises:
            UnavailableError: the transport is away.
        """
        current = self.in_force.epoch
        if current is None or self._is_over(current, roster) or not edges <= current.members:
            current = self.in_force.epoch = self._open(edges, roster)
        return current

    def leave_out(self, edges: Iterable[EdgeId]) -> None:
        """These may have lost their keys: the next time that one of them is wanted, a new epoch is opened."""
        current = self.in_force.epoch
        if current is not None:
            self.in_force.epoch = replace(current, members=current.members - frozenset(edges))

    def _is_over(self, epoch: KeyEpoch, roster: Roster) -> bool:
        steps = self.registry.next_round() - epoch.call.first_round
        aged = self.now_ms() - epoch.opened_ms > self.hours * _HOUR_MS
        followed = self.registry.newest_epoch() == epoch.call.epoch  # else its keys are gone at the edges
        return aged or not followed or epoch.call.roster_version != roster.version or steps >= MOST_STEPS_AHEAD

    def _open(self, edges: frozenset[EdgeId], roster: Roster) -> KeyEpoch:
        now_ms = self.now_ms()
        call = EpochCall(
            federation=roster.federation,
            epoch=self.registry.begin_epoch(roster_version=roster.version, now_ms=now_ms),
            center_epoch=self.center_epoch,
            roster_version=roster.version,
            first_round=self.registry.next_round(),
        )
        document = call.sign(self.center_key)
        prekeys = self._prekeys(edges, document, call, roster)
        roots = self._roots(prekeys, document, roster)
        members = self._kept(roots, document, roster)
        _log.info("key epoch opened", epoch=call.epoch, edges=len(members), asked=len(edges))
        digests = {edge: sha256(paper).digest() for edge, paper in prekeys.items()}
        return KeyEpoch(call=call, opened_ms=now_ms, prekeys=digests, members=members)

    def _prekeys(
        self, edges: frozenset[EdgeId], document: bytes, call: EpochCall, roster: Roster
    ) -> dict[EdgeId, bytes]:
        request = Request(action=Action.PREKEY, document=document)
        answers = self.exchange.ask(dict.fromkeys(edges, request))
        return {edge: paper for edge, paper in answers.items() if _is_prekey(paper, edge, call, roster)}

    def _roots(
        self, prekeys: Mapping[EdgeId, bytes], document: bytes, roster: Roster
    ) -> dict[EdgeId, dict[EdgeId, bytes]]:
        """What each edge sealed to each other: receiver -> dealer -> signed root; only edges that dealt at all."""
        requests: dict[EdgeId, Request] = {}
        for group in roster.groups:
            present = [edge for edge in group if edge in prekeys]
            papers = binary.join([prekeys[edge] for edge in present])
            request = Request(action=Action.DEAL_ROOTS, document=document, papers=papers)
            requests |= dict.fromkeys(present, request)
        dealt: dict[EdgeId, dict[EdgeId, bytes]] = {}
        for dealer, answer in self.exchange.ask(requests).items():
            dealt.setdefault(dealer, {})
            try:
                for paper in binary.split(answer):
                    root = PairRoot.open(paper, roster=roster)
                    dealt.setdefault(root.receiver, {})[dealer] = paper
            except FederationError as error:
                _log.warning("roots refused", edge=dealer, why=str(error))
        return {receiver: papers for receiver, papers in dealt.items() if receiver in requests}

    def _kept(
        self, roots: Mapping[EdgeId, Mapping[EdgeId, bytes]], document: bytes, roster: Roster
    ) -> frozenset[EdgeId]:
        requests = {
            receiver: Request(action=Action.KEEP_ROOTS, document=document, papers=binary.join(list(papers.values())))
            for receiver, papers in roots.items()
        }
        kept = self.exchange.ask(requests)
        shares = {edge: _names(answer) for edge, answer in kept.items()}
        return frozenset(
            edge for group in roster.groups for edge in _connected({e: shares[e] for e in group if e in shares})
        )


def _names(answer: bytes) -> frozenset[str]:
    """With whom an edge says that it shares a root; with nobody, if it says something else."""
    try:
        names = canonical.decode(answer)
    except FederationError:
        return frozenset()
    return frozenset(name for name in names if isinstance(name, str)) if isinstance(names, list) else frozenset()


def _connected(shares: Mapping[EdgeId, frozenset[str]]) -> frozenset[EdgeId]:
    """Edges that all share a root with one another: whoever lacks it with most others goes first."""
    left = set(shares)
    while left:
        lacks = {edge: sum(o != edge and not (o in shares[edge] and edge in shares[o]) for o in left) for edge in left}
        worst = max(sorted(left), key=lambda edge: lacks[edge])
        if not lacks[worst]:
            break
        left.remove(worst)
    return frozenset(left)


def _is_prekey(paper: bytes, edge: EdgeId, call: EpochCall, roster: Roster) -> bool:
    try:
        return Prekey.open(paper, call=call, roster=roster).edge == edge
    except FederationError as error:
        _log.warning("prekey refused", edge=edge, why=str(error))
        return False
