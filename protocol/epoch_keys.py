"""Keys of one epoch: a fresh secret for every pair of edges, that forgets itself round by round (SPEC 5).

    called ──prekey──▶ prekeys known ──roots dealt──▶ roots kept ──round──▶ one step on ──round──▶ …

Each edge publishes a prekey; of a pair the edge whose name sorts first seals 32 random bytes to the other. From then on
both ratchet the pair's state by a hash, one step a round number. Used states and the prekey are gone: who steals all
keys of an edge later, or builds a quantum computer, opens no recorded round. Every step returns a new value.

Sources: RFC 9180 (HPKE); Marlinspike and Perrin, The Double Ratchet Algorithm, 2016 (its symmetric-key half).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from types import MappingProxyType
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from protocol import binary, canonical
from protocol.epoch import EpochCall, PairRoot, Prekey
from protocol.errors import MalformedMessageError, OutOfTurnError, PeerMisbehavedError, UntrustedError
from protocol.identity import EdgeId, Roster
from protocol.sealing import SealingKey, seal

MOST_STEPS_AHEAD = 1000
"""A round number further ahead than this is an attempt to use a pair's whole future up (SPEC 5.6)."""
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpochKeys:
    """What one edge keeps of one epoch. Secret, and never backed up (SPEC 5.7).

    Attributes:
        prekey: opens the roots that are sealed to this edge; None once they have been kept.
        prekeys: SHA-256 of each signed prekey this edge has dealt with, its own among them; empty before.
        dealt: the reply that carries this edge's roots, sent again when asked again.
        next_round: the round number that `states` belong to.
        states: 32 bytes for each other edge it shares a root with.
    """

    me: EdgeId
    call: EpochCall
    published: bytes
    prekey: SealingKey | None
    next_round: int
    prekeys: Mapping[EdgeId, bytes] = field(default_factory=lambda: MappingProxyType({}))
    dealt: bytes = b""
    states: Mapping[EdgeId, bytes] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    @classmethod
    def begin(cls, call: EpochCall, *, me: EdgeId, prekey: SealingKey, identity_key: Ed25519PrivateKey) -> Self:
        """Answer a call with a fresh prekey; `published` is the reply (SPEC 5.2).

        Args:
            prekey: drawn for this epoch and used for nothing else.
        """
        document = Prekey(
            federation=call.federation,
            epoch=call.epoch,
            roster_version=call.roster_version,
            edge=me,
            key=prekey.public_bytes(),
        )
        return cls(me=me, call=call, published=document.sign(identity_key), prekey=prekey, next_round=call.first_round)

    def deal(
        self, prekeys: bytes, *, roster: Roster, identity_key: Ed25519PrivateKey, randomness: bytes
    ) -> tuple[Self, bytes]:
        """Seal a root to every edge of the group that sorts behind this one (SPEC 5.3).

        Args:
            prekeys: the signed prekeys of the epoch, joined.
            randomness: 32 bytes that the roots are derived from; used once.

        Returns:
            The keys with those roots, and the signed roots, joined. Asked again, the same bytes.

        Raises:
            MalformedMessageError, UntrustedError: a prekey that is none, or not of the edge it names.
            PeerMisbehavedError: another list than before, an edge twice or of another group, or an old prekey.
        """
        known = self._open_prekeys(prekeys, roster)
        digests = MappingProxyType({edge: sha256(paper).digest() for edge, (paper, _) in known.items()})
        if self.dealt:
            if digests != self.prekeys:
                raise PeerMisbehavedError(f"epoch {self.call.epoch} has other prekeys than before")
            return self, self.dealt
        states, papers = {}, []
        for edge, (_, prekey) in sorted(known.items()):
            if edge <= self.me:
                continue
            root = HKDFExpand(SHA256(), _SECRET_BYTES, b"hanse/1 root\0" + edge.encode()).derive(randomness)
            try:
                sealed = self._sealed(root, prekey, digests[edge])
            except MalformedMessageError:
                continue  # a prekey that is no key costs its owner the epoch, and nobody else
            states[edge] = self._first_state(root, edge, digests)
            papers.append(sealed.sign(identity_key))
        dealt = binary.join(papers)
        return replace(self, prekeys=digests, dealt=dealt, states=MappingProxyType(states)), dealt

    def _open_prekeys(self, prekeys: bytes, roster: Roster) -> dict[EdgeId, tuple[bytes, Prekey]]:
        group = roster.group_of(self.me)
        known: dict[EdgeId, tuple[bytes, Prekey]] = {}
        for paper in binary.split(prekeys):
            prekey = Prekey.open(paper, call=self.call, roster=roster)
            if prekey.edge in known or prekey.edge not in group:
                raise PeerMisbehavedError(f"{prekey.edge} is listed twice, or is not of this edge's group")
            known[prekey.edge] = (paper, prekey)
        if self.me not in known or known[self.me][0] != self.published:
            raise PeerMisbehavedError(f"epoch {self.call.epoch} lists another prekey of {self.me} than its own")
        return known

    def _sealed(self, root: bytes, receiver: Prekey, prekey_sha256: bytes) -> PairRoot:
        call = self.call
        info = PairRoot.info(call.epoch, federation=call.federation, dealer=self.me, receiver=receiver.edge)
        return PairRoot(
            federation=call.federation,
            epoch=call.epoch,
            dealer=self.me,
            receiver=receiver.edge,
            prekey_sha256=prekey_sha256,
            sealed=seal(root, public_key=receiver.key, info=info),
        )

    def keep(self, roots: bytes, *, roster: Roster) -> Self:
        """Take the roots that were sealed to this edge, and forget the prekey (SPEC 5.4).

        Raises:
            OutOfTurnError: asked before the prekeys were known.
            MalformedMessageError, UntrustedError: a root that is none, or not of its dealer.
            PeerMisbehavedError: a root of another pair or epoch, or of an edge whose prekey is not known.
        """
        if not self.dealt:
            raise OutOfTurnError(f"the prekeys of epoch {self.call.epoch} have not been seen yet")
        if self.prekey is None:
            return self  # kept before; whatever comes later is late
        states = dict(self.states)
        for paper in binary.split(roots):
            root = PairRoot.open(paper, roster=roster)
            self._check_root(root, states)
            call = self.call
            info = PairRoot.info(call.epoch, federation=call.federation, dealer=root.dealer, receiver=self.me)
            try:
                secret = self.prekey.open(root.sealed, info=info)
            except UntrustedError:
                continue  # a root that does not open costs its dealer the epoch, and nobody else
            if len(secret) != _SECRET_BYTES:
                continue
            states[root.dealer] = self._first_state(secret, root.dealer, self.prekeys)
        return replace(self, prekey=None, states=MappingProxyType(states))

    def _check_root(self, root: PairRoot, states: Mapping[EdgeId, bytes]) -> None:
        mine = self.prekeys[self.me]
        if (root.federation, root.epoch, root.receiver) != (self.call.federation, self.call.epoch, self.me):
            raise PeerMisbehavedError(f"a root of {root.dealer} is for another edge or epoch")
        if root.prekey_sha256 != mine or root.dealer >= self.me or root.dealer not in self.prekeys:
            raise PeerMisbehavedError(f"{root.dealer} had no root to seal to this edge's prekey")
        if root.dealer in states:
            raise PeerMisbehavedError(f"{root.dealer} sealed two roots")

    def _first_state(self, root: bytes, peer: EdgeId, digests: Mapping[EdgeId, bytes]) -> bytes:
        low, high = sorted((self.me, peer))
        salt = digests[low] + digests[high]
        info = b"hanse/1 pair\0" + canonical.encode([self.call.federation, self.call.epoch, low, high])
        return HKDF(SHA256(), _SECRET_BYTES, salt, info).derive(root)

    def check_reach(self, number: int) -> None:
        """Can the secrets of this round be derived, and may they (SPEC 5.6)?

        Raises:
            PeerMisbehavedError: they are gone, or too far ahead.
        """
        ahead = number - self.next_round
        if ahead < 0:
            raise PeerMisbehavedError(f"the keys of round {number} have been deleted")
        if ahead > MOST_STEPS_AHEAD:
            raise PeerMisbehavedError(
                f"round {number} is {ahead} ahead of this edge's keys, at most {MOST_STEPS_AHEAD} are allowed"
            )

    def at_round(self, number: int) -> tuple[Self, Mapping[EdgeId, bytes]]:
        """The pair secrets of one round, and the keys one step behind it: nothing earlier can be derived (SPEC 5.5).

        Raises:
            PeerMisbehavedError: a round whose secrets are gone, or too far ahead.
        """
        self.check_reach(number)
        states = dict(self.states)
        for _ in range(number - self.next_round):
            states = {edge: _step(state, b"next") for edge, state in states.items()}
        secrets = {edge: _step(state, b"round") for edge, state in states.items()}
        states = {edge: _step(state, b"next") for edge, state in states.items()}
        after = replace(self, next_round=number + 1, states=MappingProxyType(states))
        return after, MappingProxyType(secrets)

    def to_bytes(self) -> bytes:
        """For this edge's own disk."""
        return canonical.encode(
            {
                "me": self.me,
                "call": self.call.to_json(),
                "published": self.published.hex(),
                "prekey": self.prekey.to_bytes().hex() if self.prekey else "",
                "next_round": self.next_round,
                "prekeys": {edge: digest.hex() for edge, digest in self.prekeys.items()},
                "dealt": self.dealt.hex(),
                "states": {edge: state.hex() for edge, state in self.states.items()},
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read them back.

        Raises:
            MalformedMessageError: damaged.
        """
        value = canonical.decode(data)
        try:
            keys = cls(
                me=EdgeId(value["me"]),
                call=EpochCall(**value["call"]),
                published=bytes.fromhex(value["published"]),
                prekey=SealingKey.from_bytes(bytes.fromhex(value["prekey"])) if value["prekey"] else None,
                next_round=value["next_round"],
                prekeys=_bytes_by_edge(value["prekeys"]),
                dealt=bytes.fromhex(value["dealt"]),
                states=_bytes_by_edge(value["states"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MalformedMessageError("these are no keys of an epoch") from error
        if keys.to_bytes() != data:
            raise MalformedMessageError("these are no keys of an epoch as we write them")
        return keys


def _step(state: bytes, purpose: bytes) -> bytes:
    return HKDFExpand(SHA256(), _SECRET_BYTES, b"hanse/1 ratchet " + purpose).derive(state)


def _bytes_by_edge(value: Mapping[str, str]) -> Mapping[EdgeId, bytes]:
    return MappingProxyType({EdgeId(edge): bytes.fromhex(text) for edge, text in value.items()})
