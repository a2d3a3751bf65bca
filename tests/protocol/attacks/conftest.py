"""Whole sites with disks of their own, for attacks on what an edge remembers."""

from dataclasses import replace
from hashlib import sha256
from types import SimpleNamespace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.keys import Keys
from edge.rounds.ledger import Ledger
from edge.rounds.participation import Participation
from edge.rounds.ratchet import Ratchet
from edge.rounds.spending import Spending
from edge.settings import PolicySettings
from protocol import binary
from protocol.announcement import Announcement, Purpose
from protocol.epoch import EpochCall, PairRoot
from protocol.fixed_point import Segment
from protocol.identity import EdgeId, FederationId, Roster
from protocol.messages import UnmaskRequest
from protocol.secure_sum import Phase, Round
from protocol.transport import Action, Request

CENTER = Ed25519PrivateKey.from_private_bytes(sha256(b"center").digest())
HANSE = FederationId("hanse")
NAMES = tuple(EdgeId(name) for name in ("bergen", "bruges", "danzig", "kampen", "luebeck"))
NOW = 1_700_000_000_000
WEIGHTS = b"weights"
LAYOUT = (Segment(name="update", length=20, bound=1.0), Segment(name="weight", length=1, bound=1.0))
BUDGET = SimpleNamespace(epsilon="unlimited", delta=1e-6)


class Lesson:
    """A site that says the same every time, and counts how often it was asked."""

    def __init__(self, number: int) -> None:
        self.number, self.asked = number, 0

    def layout(self, announcement, _weights):
        return announcement.layout

    def until(self):
        return 7

    def values(self, announcement, _weights, *, after):
        del after
        self.asked += 1
        return {s.name: np.full(s.length, self.number / 8, np.float32) for s in announcement.layout}


class Sites:
    """Five sites in folders of their own, in one epoch; the threshold is four."""

    def __init__(self, folder, keys) -> None:
        self.names, self.weights = NAMES, WEIGHTS
        self.folder, self.keys, self.center = folder, dict(zip(NAMES, keys, strict=True)), CENTER
        self.roster = Roster.of(HANSE, 1, [keys.member(name) for name, keys in self.keys.items()])
        self.lessons = {name: Lesson(number) for number, name in enumerate(NAMES, start=1)}
        self.ledgers, self.edges = {}, {}
        for name in NAMES:
            self.start(name)
        self.traffic = []  # all that a listener on the line, or the center, has ever seen
        self.open_epoch(1)

    def place(self, name):
        return self.folder / name

    def start(self, name) -> None:
        """A new process on the same disk."""
        self.place(name).mkdir(exist_ok=True)
        if name in self.ledgers:
            self.ledgers[name].close()
        self.ledgers[name] = Ledger(self.place(name) / "state.db")
        self.edges[name] = Participation(
            me=name,
            keys=self.keys[name],
            center=CENTER.public_key(),
            roster=lambda: self.roster,
            policy=PolicySettings(),
            ledger=self.ledgers[name],
            ratchet=Ratchet(self.place(name) / "ratchet"),
            spending=Spending(self.place(name) / "spending.db", BUDGET, rounds_per_day=200),
            lessons={"train": self.lessons[name], "popularity": self.lessons[name]},
            now_ms=lambda: NOW,
        )

    def ask(self, name, action, document, papers=b"", weights=b""):
        reply = self.edges[name].answer(Request(action=action, document=document, papers=papers, weights=weights))
        self.traffic += [document, papers, reply.body or b""]
        return reply

    def open_epoch(self, number: int, *, first_round: int = 5) -> None:
        call = EpochCall(federation=HANSE, epoch=number, center_epoch=1, roster_version=1, first_round=first_round)
        document = call.sign(CENTER)
        prekeys = [self.ask(name, Action.PREKEY, document).body for name in NAMES]
        dealt = [self.ask(name, Action.DEAL_ROOTS, document, binary.join(prekeys)).body for name in NAMES]
        roots = [paper for papers in dealt for paper in binary.split(papers)]
        self.roots = {
            name: [r for r in roots if PairRoot.open(r, roster=self.roster).receiver == name] for name in NAMES
        }
        for name in NAMES:
            assert self.ask(name, Action.KEEP_ROOTS, document, binary.join(self.roots[name])).body
        self.call = document
        self.epoch, self.prekeys = number, tuple(sha256(prekey).digest() for prekey in prekeys)

    def asked(self, **changes) -> Announcement:
        cohort = changes.get("cohort", NAMES)
        announcement = Announcement(
            federation=HANSE,
            campaign="spring",
            round=5,
            key_epoch=self.epoch,
            roster_version=1,
            center_epoch=1,
            cohort=cohort,
            prekeys=tuple(self.prekeys[NAMES.index(name)] for name in cohort),
            purpose=Purpose.TRAIN,
            submodel="recommend",
            weights_sha256=sha256(WEIGHTS).digest(),
            window=0,
            layout=LAYOUT,
            clip=1.0,
            coordinate_clip=1.0,
            weight_cap=100,
            deadline_ms=NOW + 1000,
        )
        return replace(announcement, **changes)

    def update(self, name, asked: Announcement, weights: bytes = WEIGHTS):
        return self.ask(name, Action.MASKED_UPDATE, asked.sign(CENTER), weights=weights)

    def abandon(self, name, asked: Announcement):
        return self.ask(name, Action.ABANDON, asked.sign(CENTER))

    def reopen(self, name, asked: Announcement, papers):
        return self.ask(name, Action.REOPEN, asked.sign(CENTER), binary.join(list(papers)))

    def play(self, asked: Announcement, *, upload=NAMES, sign=NAMES, unmask=NAMES) -> Round:
        """A round up to where the named sites carry it; the center closes no stage that lacks answers."""
        round_ = Round.announce(asked, roster=self.roster)
        for name in upload:
            round_ = round_.receive(name, Phase.MASKING, self.update(name, asked).body)
        if not sign:
            return round_
        round_ = round_.close_phase()
        survivors = round_.survivors.sign(CENTER)
        for name in set(sign) & set(upload):
            answer = self.ask(name, Action.SIGN_SURVIVORS, survivors).body
            round_ = round_.receive(name, Phase.SIGNING, answer)
        if not unmask:
            return round_
        round_ = round_.close_phase()
        for name in set(unmask) & set(round_.asked):
            answer = self.ask(name, Action.UNMASK, survivors, round_.unmask_request(name)).body
            round_ = round_.receive(name, Phase.UNMASKING, answer)
        return round_.close_phase()

    def close(self) -> None:
        for ledger in self.ledgers.values():
            ledger.close()


@pytest.fixture(scope="session")
def site_keys() -> list[Keys]:
    return [Keys.generate() for _ in NAMES]


@pytest.fixture
def sites(site_keys, tmp_path):
    sites = Sites(tmp_path, site_keys)
    yield sites
    sites.close()


@pytest.fixture
def honest_request(signed):
    """The request that bergen should get, taken apart."""
    return UnmaskRequest.from_bytes(signed.round.unmask_request("bergen"))
