"""The same round as an edge sees it: a state machine that never waits (SPEC 7).

    ANNOUNCED ──mask──▶ MASKED ──sign──▶ SIGNED ──unmask──▶ UNMASKED
        └──────────────────┴────────────────┴──abandon──▶ ABANDONED

Each arrow is taken at most once in a round; asked again the same thing, an edge says the same thing. The caller writes
each new value to its disk before what it says leaves. What this site refuses beyond the protocol stands in
`edge.rounds.policy`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from numpy.typing import NDArray

from protocol import acceptance, canonical, cohort, packing, privacy, round_keys, secret_sharing
from protocol.acceptance import Standing
from protocol.announcement import Announcement
from protocol.epoch_keys import EpochKeys
from protocol.errors import MalformedMessageError, OutOfTurnError, PeerMisbehavedError
from protocol.fixed_point import encode, words_of
from protocol.identity import EdgeId, Roster
from protocol.masking import Sign, apply_masks, keystream
from protocol.messages import Abandonment, MaskedUpdate, Survivors, SurvivorSignature, Unmasking, UnmaskRequest
from protocol.noise import skellam
from protocol.round_keys import Use

Values = Mapping[str, NDArray[np.floating[Any]] | float]


class Phase(Enum):
    """Where an edge stands in a round."""

    ANNOUNCED = "announced"
    MASKED = "masked"
    SIGNED = "signed"
    UNMASKED = "unmasked"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EdgeRound:
    """One round at one edge. Every step returns a new value; a refused step changes nothing.

    Attributes:
        opening_keys: for each other edge, the key that opens the shares it seals to this one.
        own_shares: this edge's own share of each of its secrets, in the order of the cohort.
        survivors: digest of the survivor set it has signed, empty before.
        reply: what it said in its last step, other than the masked update.
    """

    me: EdgeId
    announcement: Announcement
    phase: Phase = Phase.ANNOUNCED
    opening_keys: Mapping[EdgeId, bytes] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    own_shares: tuple[bytes, ...] = field(default=(), repr=False)
    survivors: bytes = b""
    reply: bytes = b""

    @classmethod
    def accept(
        cls,
        data: bytes,
        *,
        me: EdgeId,
        roster: Roster,
        center: Ed25519PublicKey,
        keys: EpochKeys,
        standing: Standing,
        now_ms: int,
    ) -> Self:
        """Check an announcement before anything is computed for it (SPEC 7.1-7.2).

        Args:
            data: the signed announcement.
            me: this edge.
            roster: the newest roster this edge has accepted.
            center: the center's online key, pinned when the edge joined.
            keys: of the newest epoch it has followed.
            now_ms: UTC.

        Raises:
            MalformedMessageError, BadSignatureError: not an announcement of this center.
            PeerMisbehavedError: replayed, expired, of another federation, roster or epoch, or not of this edge's group.
            NotAdmittedError: the cohort names an edge that the roster does not.
        """
        announcement = Announcement.open(data, key=center)
        acceptance.check(announcement, me=me, roster=roster, keys=keys, standing=standing, now_ms=now_ms)
        return cls(me=me, announcement=announcement)

    def mask(
        self,
        values: Values,
        *,
        secrets: Mapping[EdgeId, bytes],
        identity_key: Ed25519PrivateKey,
        entropy: bytes,
    ) -> tuple[Self, bytes]:
        """Encode, mask, deal shares and sign this edge's contribution (SPEC 7.3).

        Args:
            values: float[length] for each segment of the announced layout, within its bound.
            secrets: 32 bytes for each other edge of the cohort, from `EpochKeys.at_round`.
            identity_key: the Ed25519 key of this edge that the roster names.
            entropy: 32 bytes from the operating system, drawn for this call.

        Returns:
            The round in its next phase, and the bytes of the `MaskedUpdate`.

        Raises:
            OutOfTurnError: masked before: a second vector under the same masks would show their difference.
            ValueError: a value is missing, not finite or beyond its bound.
        """
        if self.phase is not Phase.ANNOUNCED:
            raise OutOfTurnError(f"round {self.announcement.round} has been answered")
        digest = self.announcement.digest()
        seeds = self._seeds(secrets, entropy, digest)
        words = self._encode(values, entropy, digest)
        apply_masks(words, [(seed, self._sign_towards(peer)) for peer, seed in seeds.items()])
        packed = packing.pack(words, layout=self.announcement.layout)
        del words  # as large as the message; both together are all the memory this may take
        shares = self._shares(seeds, entropy, digest)
        update = MaskedUpdate.signed(
            announcement=digest,
            edge=self.me,
            packed=packed,
            commitments=[
                round_keys.commitment(seed, announcement=digest, edges=tuple(sorted({self.me, peer})))
                for peer, seed in seeds.items()
            ],
            sealed=self._seal(shares, secrets, digest),
            key=identity_key,
        )
        mine = self.announcement.cohort.index(self.me)
        opening = {
            peer: round_keys.sealing_key(secrets[peer], announcement=digest, dealer=peer, receiver=self.me)
            for peer in self._peers()
        }
        own = tuple(dealt[mine] for dealt in shares)
        after = replace(self, phase=Phase.MASKED, opening_keys=MappingProxyType(opening), own_shares=own)
        return after, update.to_bytes()

    def _peers(self) -> tuple[EdgeId, ...]:
        return tuple(edge for edge in self.announcement.cohort if edge != self.me)

    def _sign_towards(self, peer: EdgeId) -> Sign:
        """Of a pair the edge whose name sorts first adds the mask; its own an edge adds (SPEC 5.9)."""
        return Sign.ADD if self.me <= peer else Sign.SUBTRACT

    def _seeds(self, secrets: Mapping[EdgeId, bytes], entropy: bytes, digest: bytes) -> dict[EdgeId, bytes]:
        """The seed at each place of the cohort: of this edge's own mask at its own place, else of a pair's."""
        return {
            edge: round_keys.own(entropy, Use.OWN_MASK, announcement=digest)
            if edge == self.me
            else round_keys.mask_seed(secrets[edge], announcement=digest)
            for edge in self.announcement.cohort
        }

    def _encode(self, values: Values, entropy: bytes, digest: bytes) -> NDArray[np.uint32]:
        announcement = self.announcement
        edges, layout = announcement.edges, announcement.layout
        variance, noise = 0.0, None
        if announcement.privacy is not None:
            variance = privacy.variance_of_sum(announcement.privacy, layout=layout, edges=edges)
            mine = privacy.variance_of_edge(announcement.privacy, layout=layout, edges=edges)
            seed = round_keys.own(entropy, Use.NOISE, announcement=digest)
            noise = skellam(seed, variance=mine, size=words_of(layout))
        rounding = round_keys.own(entropy, Use.ROUNDING, announcement=digest)
        return encode(values, layout=layout, edges=edges, seed=rounding, variance=variance, noise=noise)

    def _shares(self, seeds: Mapping[EdgeId, bytes], entropy: bytes, digest: bytes) -> list[list[bytes]]:
        """For each secret in the order of the cohort, the share of each edge of the cohort."""
        n = self.announcement.edges
        t = cohort.threshold(n)
        size = secret_sharing.SHARE_BYTES * (t - 1)
        stream = keystream(round_keys.own(entropy, Use.SHARES, announcement=digest), size * n)
        return [
            secret_sharing.split(seed, threshold=t, shares=n, coefficients=stream[place * size : (place + 1) * size])
            for place, seed in enumerate(seeds.values())
        ]

    def _seal(self, shares: list[list[bytes]], secrets: Mapping[EdgeId, bytes], digest: bytes) -> bytes:
        sealed = []
        for place, receiver in enumerate(self.announcement.cohort):
            if receiver == self.me:
                continue
            key = round_keys.sealing_key(secrets[receiver], announcement=digest, dealer=self.me, receiver=receiver)
            for number, secret in enumerate(self.announcement.cohort):
                about = round_keys.about(announcement=digest, dealer=self.me, receiver=receiver, secret=secret)
                sealed.append(round_keys.seal_share(shares[number][place], key=key, about=about, secret=number))
        return b"".join(sealed)

    def sign_survivors(
        self, data: bytes, *, center: Ed25519PublicKey, identity_key: Ed25519PrivateKey
    ) -> tuple[Self, bytes]:
        """Sign the first acceptable survivor set, and no other ever (SPEC 7.5).

        Args:
            data: the signed `Survivors`.

        Returns:
            The round in its next phase, and the bytes of the `SurvivorSignature`; asked again, the same bytes.

        Raises:
            MalformedMessageError, BadSignatureError: no survivor set of this center.
            OutOfTurnError: this edge has not sent a masked update, or has given the round up.
            PeerMisbehavedError: another set than before, or too small, beyond the cohort, without this edge, of another
                round.
        """
        survivors = self._open_survivors(data, center)
        if self.phase in {Phase.ANNOUNCED, Phase.ABANDONED}:
            raise OutOfTurnError(f"round {self.announcement.round} is {self.phase.value} here")
        if self.survivors and self.survivors != survivors.digest():
            raise PeerMisbehavedError(f"another survivor set for round {self.announcement.round} than before")
        if self.phase is not Phase.MASKED:
            return self, SurvivorSignature.signed(survivors, edge=self.me, key=identity_key).to_bytes()
        reply = SurvivorSignature.signed(survivors, edge=self.me, key=identity_key).to_bytes()
        return replace(self, phase=Phase.SIGNED, survivors=survivors.digest()), reply

    def _open_survivors(self, data: bytes, center: Ed25519PublicKey) -> Survivors:
        survivors = Survivors.open(data, key=center)
        asked = self.announcement
        if survivors.announcement != asked.digest():
            raise PeerMisbehavedError("a survivor set of another round")
        if not set(survivors.edges) <= set(asked.cohort):
            raise PeerMisbehavedError("a survivor set that reaches beyond the cohort")
        if len(survivors.edges) < cohort.threshold(asked.edges):
            raise PeerMisbehavedError(
                f"{len(survivors.edges)} survivors of {asked.edges}, {cohort.threshold(asked.edges)} are needed"
            )
        if self.me not in survivors.edges:
            raise PeerMisbehavedError(f"a survivor set without {self.me}, which is asked to sign it")
        return survivors

    def unmask(
        self,
        data: bytes,
        request: bytes,
        *,
        center: Ed25519PublicKey,
        roster: Roster,
        identity_key: Ed25519PrivateKey,
    ) -> tuple[Self, bytes]:
        """Open this sum and no other: once enough survivors have signed the set that this edge signed (SPEC 7.6).

        Args:
            data: the signed `Survivors`.
            request: the bytes of the `UnmaskRequest`.

        Returns:
            The round in its last phase, without its keys, and the bytes of the `Unmasking`; asked again, the same.

        Raises:
            MalformedMessageError, UntrustedError: a signature or a sealed share that is not what it is said to be.
            OutOfTurnError: this edge has not signed a survivor set, or has given the round up.
            PeerMisbehavedError: another set than it signed, too few signatures, or other shares than it may open.
        """
        survivors = self._open_survivors(data, center)
        if self.phase not in {Phase.SIGNED, Phase.UNMASKED}:
            raise OutOfTurnError(f"round {self.announcement.round} is {self.phase.value} here")
        if survivors.digest() != self.survivors:
            raise PeerMisbehavedError(f"another survivor set for round {self.announcement.round} than before")
        if self.phase is Phase.UNMASKED:
            return self, self.reply
        asked = UnmaskRequest.from_bytes(request)
        self._check_signatures(asked, survivors, roster)
        if set(asked.sealed) != set(survivors.edges) - {self.me}:
            raise PeerMisbehavedError("an edge opens what each survivor dealt, no less and no more")
        reply = Unmasking.signed(
            announcement=survivors.announcement,
            edge=self.me,
            survivors=survivors.digest(),
            shares=self._open_shares(asked, survivors),
            key=identity_key,
        ).to_bytes()
        return self._over(Phase.UNMASKED, reply), reply

    def _check_signatures(self, asked: UnmaskRequest, survivors: Survivors, roster: Roster) -> None:
        for edge, signature in asked.signatures.items():
            if edge not in survivors.edges:
                raise PeerMisbehavedError(f"{edge} signed a survivor set that it is not in")
            SurvivorSignature(
                announcement=survivors.announcement, edge=edge, survivors=survivors.digest(), signature=signature
            ).check(roster.member(edge).identity_key())
        needed = cohort.threshold(self.announcement.edges)
        if len(asked.signatures) < needed:
            raise PeerMisbehavedError(f"{len(asked.signatures)} survivors have signed, {needed} are needed")

    def _open_shares(self, asked: UnmaskRequest, survivors: Survivors) -> list[bytes]:
        """For each survivor: the share of its own mask, and of its mask with each dropped edge *as it dealt it*."""
        places = {edge: place for place, edge in enumerate(self.announcement.cohort)}
        dropped = [edge for edge in self.announcement.cohort if edge not in survivors.edges]
        shares = []
        for dealer in survivors.edges:
            secrets = [dealer, *dropped]
            if dealer == self.me:
                shares += [self.own_shares[places[secret]] for secret in secrets]
                continue
            if len(asked.sealed[dealer]) != len(secrets):
                raise PeerMisbehavedError(f"{len(asked.sealed[dealer])} shares of {dealer}, not {len(secrets)}")
            for secret, sealed in zip(secrets, asked.sealed[dealer], strict=True):
                about = round_keys.about(
                    announcement=survivors.announcement, dealer=dealer, receiver=self.me, secret=secret
                )
                key = self.opening_keys[dealer]
                shares.append(round_keys.open_share(sealed, key=key, about=about, secret=places[secret]))
        return shares

    def abandon(self, *, identity_key: Ed25519PrivateKey) -> tuple[Self, bytes]:
        """Give the round up for good (SPEC 8.2).

        Returns:
            The round without its keys, and the bytes of the `Abandonment`; asked again, the same bytes.

        Raises:
            PeerMisbehavedError: this edge has helped to open it.
        """
        if self.phase is Phase.UNMASKED:
            raise PeerMisbehavedError(f"round {self.announcement.round} has been opened, it cannot be given up")
        if self.phase is Phase.ABANDONED:
            return self, self.reply
        reply = Abandonment.signed(self.announcement.digest(), edge=self.me, key=identity_key).to_bytes()
        return self._over(Phase.ABANDONED, reply), reply

    def _over(self, phase: Phase, reply: bytes) -> Self:
        return replace(self, phase=phase, reply=reply, opening_keys=MappingProxyType({}), own_shares=())

    def to_bytes(self) -> bytes:
        """For this edge's own disk, which must never be backed up while the round runs."""
        return canonical.encode(
            {
                "me": self.me,
                "announcement": self.announcement.to_json(),
                "phase": self.phase.value,
                "opening_keys": {edge: key.hex() for edge, key in self.opening_keys.items()},
                "own_shares": [share.hex() for share in self.own_shares],
                "survivors": self.survivors.hex(),
                "reply": self.reply.hex(),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read it back.

        Raises:
            MalformedMessageError: damaged.
        """
        value = canonical.decode(data)
        try:
            keys = {EdgeId(edge): bytes.fromhex(key) for edge, key in value["opening_keys"].items()}
            turn = cls(
                me=EdgeId(value["me"]),
                announcement=Announcement.from_json(value["announcement"]),
                phase=Phase(value["phase"]),
                opening_keys=MappingProxyType(keys),
                own_shares=tuple(bytes.fromhex(share) for share in value["own_shares"]),
                survivors=bytes.fromhex(value["survivors"]),
                reply=bytes.fromhex(value["reply"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MalformedMessageError("this is no round of an edge") from error
        if turn.to_bytes() != data:
            raise MalformedMessageError("this is no round of an edge as we write it")
        return turn
