"""A small world: towns with keys, an epoch opened among them, and rounds by arithmetic alone."""

from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol import binary
from protocol.acceptance import Standing
from protocol.announcement import Announcement, Purpose
from protocol.epoch import EpochCall, PairRoot
from protocol.epoch_keys import EpochKeys
from protocol.fixed_point import Segment, resolution
from protocol.identity import EdgeId, FederationId, Member, Roster
from protocol.masked_update import EdgeRound
from protocol.messages import MaskedUpdate, UnmaskRequest
from protocol.packing import unpack
from protocol.round_keys import Use, mask_seed, own
from protocol.sealing import SealingKey
from protocol.secure_sum import Phase, Round

HANSE = FederationId("hanse")
NOW = 1_700_000_000_000
NAMES = [
    EdgeId(name)
    for name in ("bergen", "bruges", "danzig", "kampen", "luebeck", "novgorod", "reval", "stralsund", "turku", "visby")
]
LAYOUT = (Segment(name="update", length=40, bound=4.0, bits=20), Segment(name="weight", length=1, bound=1.0))


def key(text: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(sha256(text.encode()).digest())


class Town:
    """One edge with its keys."""

    def __init__(self, name: EdgeId) -> None:
        self.name = name
        self.identity = key(f"identity of {name}")
        self.keys: EpochKeys | None = None

    def prekey(self, epoch: int) -> SealingKey:
        seed = f"prekey of {self.name} in {epoch}".encode()
        return SealingKey.from_bytes(b"".join(sha256(seed + bytes([i])).digest() for i in range(3)))

    def member(self) -> Member:
        return Member(
            edge=self.name, identity=self.identity.public_key().public_bytes_raw(), seal=b"seal", node=b"node"
        )


class World:
    """Towns that have opened an epoch together. Nothing in it changes but what a test replaces in its own copy."""

    def __init__(self, names=tuple(NAMES), *, epoch: int = 4, groups=None) -> None:
        self.names = list(names)
        self.center = key("center")
        self.offline = key("offline")
        self.towns = {name: Town(name) for name in names}
        self.roster = Roster.of(HANSE, 3, [town.member() for town in self.towns.values()], groups=groups)
        self.call = EpochCall(federation=HANSE, epoch=epoch, center_epoch=1, roster_version=3, first_round=5)
        self.begun = {name: self.begin(name) for name in names}
        self.dealt, self.roots = {}, {}
        for name in names:
            self.dealt[name], self.roots[name] = self.deal(name)
        for name, town in self.towns.items():
            town.keys = self.dealt[name].keep(self.roots_for(name), roster=self.roster)

    def begin(self, name) -> EpochKeys:
        town = self.towns[name]
        prekey = town.prekey(self.call.epoch)
        return EpochKeys.begin(self.call, me=name, prekey=prekey, identity_key=town.identity)

    def prekeys(self, **instead) -> bytes:
        """The signed prekeys of a town's group, as the center hands them around."""
        return binary.join([instead.get(name, self.begun[name].published) for name in self.names])

    def deal(self, name, prekeys: bytes | None = None):
        group = [self.begun[peer].published for peer in self.roster.group_of(name)]
        return self.begun[name].deal(
            binary.join(group) if prekeys is None else prekeys,
            roster=self.roster,
            identity_key=self.towns[name].identity,
            randomness=sha256(b"randomness of " + name.encode()).digest(),
        )

    def roots_for(self, name) -> bytes:
        papers = [paper for roots in self.roots.values() for paper in binary.split(roots)]
        return binary.join([paper for paper in papers if PairRoot.open(paper, roster=self.roster).receiver == name])

    def announcement(self, edges: int = 5, **changes) -> Announcement:
        """Round 7 with the first so many towns; a change of the cohort brings its prekeys along."""
        names = changes.get("cohort", tuple(self.names[:edges]))
        known = self.towns[self.names[0]].keys.prekeys
        asked = Announcement(
            federation=HANSE,
            campaign="spring",
            round=7,
            key_epoch=self.call.epoch,
            roster_version=3,
            center_epoch=1,
            cohort=names,
            prekeys=tuple(known.get(name, bytes(32)) for name in names),
            purpose=Purpose.TRAIN,
            submodel="recommend",
            weights_sha256=bytes(32),
            window=0,
            layout=LAYOUT,
            clip=4.0,
            coordinate_clip=4.0,
            weight_cap=100,
            deadline_ms=NOW + 60_000,
        )
        return replace(asked, **changes)

    def accept(self, name, asked: Announcement | bytes, *, last_round=0, last_epoch=0, now=NOW, **changes) -> EdgeRound:
        """What a town makes of an announcement."""
        told = {"roster": self.roster, "center": self.center.public_key(), "keys": self.towns[name].keys}
        return EdgeRound.accept(
            asked.sign(self.center) if isinstance(asked, Announcement) else asked,
            me=name,
            standing=Standing(last_round=last_round, last_epoch=last_epoch),
            now_ms=now,
            **{**told, **changes},
        )

    def mask(self, turn: EdgeRound, values=None, *, entropy: bytes | None = None, secrets=None):
        town = self.towns[turn.me]
        return turn.mask(
            values_of(turn) if values is None else values,
            secrets=town.keys.at_round(turn.announcement.round)[1] if secrets is None else secrets,
            identity_key=town.identity,
            entropy=entropy_of(turn.me) if entropy is None else entropy,
        )

    def play(
        self, asked: Announcement | None = None, *, edges: int = 5, told=None, values=None, secrets=None
    ) -> "Play":
        """A round in which every town of the cohort has masked its update, and the center has heard none.

        `told` is another announcement than the others', by town; `values` and `secrets` likewise are other ones.
        """
        asked = asked or self.announcement(edges)
        turns = {}
        for name in asked.cohort:
            turn = self.accept(name, (told or {}).get(name, asked))
            turns[name] = self.mask(turn, (values or {}).get(name), secrets=(secrets or {}).get(name))
        return Play(self, asked, turns)


def entropy_of(name) -> bytes:
    return sha256(b"entropy of " + name.encode()).digest()


def values_of(turn: EdgeRound) -> dict[str, np.ndarray | float]:
    """What a town has to say, always the same; every segment within its bound."""
    rng = np.random.default_rng(list(turn.me.encode()))
    return {
        segment.name: rng.uniform(-segment.bound, segment.bound, segment.length).astype(np.float32)
        for segment in turn.announcement.layout
    }


class Play:
    """One round, stage by stage; each stage is told who takes part in it, and ends."""

    def __init__(self, world: World, asked: Announcement, turns) -> None:
        self.world, self.asked = world, asked
        self.turns = {name: turn for name, (turn, _) in turns.items()}
        self.updates = {name: update for name, (_, update) in turns.items()}
        self.round = Round.announce(asked, roster=world.roster)

    @property
    def survivors(self) -> bytes:
        """The survivor set as the center signs it."""
        return self.round.survivors.sign(self.world.center)

    def upload(self, names=None, *, close=True) -> "Play":
        for name in self.asked.cohort if names is None else names:
            self.round = self.round.receive(name, Phase.MASKING, self.updates[name])
        return self._after(close=close)

    def sign(self, names=None, *, close=True) -> "Play":
        for name in self.round.asked if names is None else names:
            self.round = self.round.receive(name, Phase.SIGNING, self.signature(name))
        return self._after(close=close)

    def signature(self, name, survivors: bytes | None = None) -> bytes:
        self.turns[name], signature = self.turns[name].sign_survivors(
            survivors or self.survivors,
            center=self.world.center.public_key(),
            identity_key=self.world.towns[name].identity,
        )
        return signature

    def unmask(self, names=None, *, close=True) -> "Play":
        for name in self.round.asked if names is None else names:
            self.round = self.round.receive(name, Phase.UNMASKING, self.opened(name))
        return self._after(close=close)

    def opened(self, name, request: bytes | None = None, survivors: bytes | None = None) -> bytes:
        """What a town opens when it is shown this request, or the honest one."""
        self.turns[name], opened = self.turns[name].unmask(
            survivors or self.survivors,
            request or self.round.unmask_request(name),
            center=self.world.center.public_key(),
            roster=self.world.roster,
            identity_key=self.world.towns[name].identity,
        )
        return opened

    def request(self, name, **changes) -> bytes:
        """The honest request to this town with something in it changed."""
        honest = UnmaskRequest.from_bytes(self.round.unmask_request(name))
        return replace(
            honest, **{field: change(getattr(honest, field)) for field, change in changes.items()}
        ).to_bytes()

    def _after(self, *, close: bool) -> "Play":
        if close:
            self.round = self.round.close_phase()
        return self

    def own_seed(self, name) -> bytes:
        """The seed of a town's own mask: b_i."""
        return own(entropy_of(name), Use.OWN_MASK, announcement=self.turns[name].announcement.digest())

    def pair_seed(self, name, other) -> bytes:
        """The seed of the mask that two towns share: s_ij."""
        _, secrets = self.world.towns[name].keys.at_round(self.asked.round)
        return mask_seed(secrets[other], announcement=self.asked.digest())

    def words(self, name) -> np.ndarray:
        """uint32[d], what a town has sent."""
        packed = bytes(MaskedUpdate.from_bytes(self.updates[name]).packed)
        return unpack(packed, layout=self.asked.layout)

    def plain(self, names) -> dict[str, np.ndarray]:
        """What these towns have to say, added up by someone who may see it all."""
        values = [values_of(self.turns[name]) for name in names]
        return {
            segment.name: np.sum([value[segment.name] for value in values], axis=0, dtype=np.float64)
            for segment in self.asked.layout
        }

    def is_sum_of(self, names) -> bool:
        """Is the center's sum that of these towns, and of no others?"""
        return self.is_plain(self.round.sums(), names)

    def is_plain(self, sums, names) -> bool:
        plain, edges = self.plain(names), self.asked.edges
        return all(
            np.abs(sums[segment.name] - plain[segment.name]).max() <= len(names) * resolution(segment, edges=edges)
            for segment in self.asked.layout
        )


@pytest.fixture(scope="session")
def world() -> World:
    """Ten towns, threshold 7: three may drop. A smaller cohort is the first few of them."""
    return World()


@pytest.fixture(scope="session")
def new_world():
    """Another world, told how it differs."""
    return World


@pytest.fixture
def answered(world):
    """Five towns, threshold 4, visby's neighbour luebeck has dropped: the center asks for signatures."""
    return world.play().upload(world.names[:4])


@pytest.fixture
def signed(answered):
    """The four have signed: the center asks for shares."""
    return answered.sign()
