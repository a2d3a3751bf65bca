"""One small round with fixed keys: what vectors are written from, and what the fuzzer starts from.

Everything follows from fixed keys and fixed entropy but one thing: HPKE draws randomness of its own. So the roots of
the epoch are recorded once, and all that comes after them is computed from the record.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, Self

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from protocol import binary
from protocol.acceptance import Standing
from protocol.announcement import Announcement, Purpose
from protocol.epoch import EpochCall, PairRoot
from protocol.epoch_keys import EpochKeys
from protocol.fixed_point import Segment
from protocol.identity import EdgeId, FederationId, Member, Roster
from protocol.masked_update import EdgeRound
from protocol.sealing import SealingKey
from protocol.secure_sum import Phase, Round

FEDERATION = FederationId("hanse")
NAMES = tuple(EdgeId(name) for name in ("bergen", "bruges", "luebeck", "visby"))
DROPPED = EdgeId("visby")
SURVIVORS = NAMES[:3]
NOW_MS = 1_700_000_000_000
ROUND = 7
LAYOUT = (
    Segment(name="update", length=9, bound=4.0, bits=20),
    Segment(name="counts", length=3, bound=1000.0, bits=24),
    Segment(name="weight", length=1, bound=1.0),
)
_PREKEY_BLOCKS = 3


def seed(what: str) -> bytes:
    """32 bytes that everybody can compute: no secret, and not meant to be one."""
    return sha256(b"hanse known round\0" + what.encode()).digest()


def signing_key(whose: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(seed(f"identity of {whose}"))


def prekey(edge: EdgeId) -> SealingKey:
    return SealingKey.from_bytes(b"".join(seed(f"prekey {block} of {edge}") for block in range(_PREKEY_BLOCKS)))


def values(edge: EdgeId) -> dict[str, NDArray[np.float32]]:
    """What an edge has to say: fractions that have to be rounded, counts that must stay exact, the extremes."""
    number = NAMES.index(edge) + 1
    update = np.linspace(-4, 4, 9, dtype=np.float32) * np.float32(0.1 * number)
    update[0], update[-1] = -4.0, 4.0
    return {
        "update": update,
        "counts": np.array([number, 10 * number, 1000], np.float32),
        "weight": np.array([number / 4], np.float32),
    }


CENTER = signing_key("the center")
OFFLINE = signing_key("the roster's keeper")
ROSTER = Roster.of(
    FEDERATION,
    3,
    [
        Member(
            edge=edge,
            identity=signing_key(edge).public_key().public_bytes_raw(),
            seal=prekey(edge).public_bytes(),
            node=seed(f"node of {edge}"),
        )
        for edge in NAMES
    ],
)
CALL = EpochCall(federation=FEDERATION, epoch=2, center_epoch=1, roster_version=3, first_round=5)


@dataclass(frozen=True, kw_only=True)
class KnownRound:
    """The recorded epoch, and the round of four edges that follows from it: visby drops before its upload arrives.

    Attributes:
        roots: for each edge, the signed roots that it dealt, joined.
    """

    roots: Mapping[EdgeId, bytes]

    @classmethod
    def record(cls) -> Self:
        """Open an epoch; the one step that comes out differently each time."""
        return cls(roots={edge: _deal(edge)[1] for edge in NAMES})

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `vectors` has written."""
        return cls(roots={edge: bytes.fromhex(value["roots"][edge]) for edge in NAMES})

    @cached_property
    def dealt(self) -> dict[EdgeId, EpochKeys]:
        """The keys of each edge before it has kept the roots of the others."""
        return {edge: _deal(edge)[0] for edge in NAMES}

    @cached_property
    def keys(self) -> dict[EdgeId, EpochKeys]:
        """The keys of each edge when the epoch is open."""
        return {edge: self.dealt[edge].keep(self.roots_for(edge), roster=ROSTER) for edge in NAMES}

    def roots_for(self, receiver: EdgeId) -> bytes:
        papers = [paper for roots in self.roots.values() for paper in binary.split(roots)]
        return binary.join([p for p in papers if PairRoot.open(p, roster=ROSTER).receiver == receiver])

    @cached_property
    def announcement(self) -> Announcement:
        return Announcement(
            federation=FEDERATION,
            campaign="spring",
            round=ROUND,
            key_epoch=CALL.epoch,
            roster_version=ROSTER.version,
            center_epoch=1,
            cohort=NAMES,
            prekeys=tuple(sha256(begun(edge).published).digest() for edge in NAMES),
            purpose=Purpose.TRAIN,
            submodel="recommend",
            weights_sha256=seed("weights"),
            window=0,
            layout=LAYOUT,
            clip=4.0,
            coordinate_clip=4.0,
            weight_cap=100,
            deadline_ms=NOW_MS + 60_000,
            training={"epochs": 1.0, "learning_rate": 0.1},
        )

    def accept(self, edge: EdgeId, document: bytes) -> EdgeRound:
        return EdgeRound.accept(
            document,
            me=edge,
            roster=ROSTER,
            center=CENTER.public_key(),
            keys=self.keys[edge],
            standing=Standing(last_round=ROUND - 1, last_epoch=1),
            now_ms=NOW_MS,
        )

    @cached_property
    def masked(self) -> dict[EdgeId, tuple[EdgeRound, bytes]]:
        """Each edge once it has masked, and its `MaskedUpdate`."""
        document = self.announcement.sign(CENTER)
        return {
            edge: self.accept(edge, document).mask(
                values(edge),
                secrets=self.keys[edge].at_round(ROUND)[1],
                identity_key=signing_key(edge),
                entropy=seed(f"entropy of {edge}"),
            )
            for edge in NAMES
        }

    @cached_property
    def uploading(self) -> Round:
        """The center before anything has come."""
        return Round.announce(self.announcement, roster=ROSTER)

    @cached_property
    def signing(self) -> Round:
        """The center when it has named the survivors."""
        return self._answered(self.uploading, Phase.MASKING, {edge: self.masked[edge][1] for edge in SURVIVORS})

    @cached_property
    def survivors(self) -> bytes:
        """The signed survivor set."""
        named = self.signing.survivors
        assert named is not None
        return named.sign(CENTER)

    @cached_property
    def signed(self) -> dict[EdgeId, tuple[EdgeRound, bytes]]:
        """Each survivor once it has signed, and its `SurvivorSignature`."""
        return {
            edge: self.masked[edge][0].sign_survivors(
                self.survivors, center=CENTER.public_key(), identity_key=signing_key(edge)
            )
            for edge in SURVIVORS
        }

    @cached_property
    def unmasking(self) -> Round:
        """The center when enough have signed."""
        return self._answered(self.signing, Phase.SIGNING, {edge: self.signed[edge][1] for edge in SURVIVORS})

    @cached_property
    def requests(self) -> dict[EdgeId, bytes]:
        """The `UnmaskRequest` to each survivor."""
        return {edge: self.unmasking.unmask_request(edge) for edge in SURVIVORS}

    @cached_property
    def unmasked(self) -> dict[EdgeId, tuple[EdgeRound, bytes]]:
        """Each survivor once it has opened, and its `Unmasking`."""
        return {edge: self.unmask(edge, self.survivors, self.requests[edge]) for edge in SURVIVORS}

    def unmask(self, edge: EdgeId, survivors: bytes, request: bytes) -> tuple[EdgeRound, bytes]:
        return self.signed[edge][0].unmask(
            survivors, request, center=CENTER.public_key(), roster=ROSTER, identity_key=signing_key(edge)
        )

    @cached_property
    def summed(self) -> Round:
        """The center at the end."""
        return self._answered(self.unmasking, Phase.UNMASKING, {edge: self.unmasked[edge][1] for edge in SURVIVORS})

    def _answered(self, round_: Round, phase: Phase, answers: Mapping[EdgeId, bytes]) -> Round:
        for edge, answer in answers.items():
            round_ = round_.receive(edge, phase, answer)
        return round_.close_phase()


def begun(edge: EdgeId) -> EpochKeys:
    """The keys of an edge that has answered the call."""
    return EpochKeys.begin(CALL, me=edge, prekey=prekey(edge), identity_key=signing_key(edge))


def prekeys() -> bytes:
    return binary.join([begun(edge).published for edge in NAMES])


def _deal(edge: EdgeId) -> tuple[EpochKeys, bytes]:
    return begun(edge).deal(
        prekeys(), roster=ROSTER, identity_key=signing_key(edge), randomness=seed(f"randomness of {edge}")
    )
