"""What an edge answers when the center asks: nothing twice, nothing unasked, nothing beyond its policy."""

import shutil
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.keys import Keys
from edge.rounds.ledger import Ledger
from edge.rounds.participation import DONE, Participation
from edge.rounds.ratchet import Ratchet
from edge.rounds.spending import Spending
from edge.settings import PolicySettings, PrivacySettings
from protocol import binary, canonical, lessons
from protocol.announcement import Announcement, Purpose
from protocol.epoch import EpochCall, PairRoot
from protocol.identity import EdgeId, FederationId, Roster
from protocol.messages import Abandonment, MaskedUpdate
from protocol.secure_sum import Phase, Round
from protocol.transport import Action, Request

CENTER = Ed25519PrivateKey.from_private_bytes(b"c" * 32)
NAMES = tuple(EdgeId(name) for name in ("bergen", "bruges", "visby"))
NOW = 1_700_000_000_000
WEIGHTS = b"weights"
CALL = EpochCall(federation=FederationId("hanse"), epoch=1, center_epoch=1, roster_version=1, first_round=1)


class CountingLesson:
    """Says the same every time, and how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.events = 7
        self.counted_after = []

    def layout(self, _announcement, _weights):
        return lessons.popularity_layout(9)

    def until(self):
        return self.events

    def values(self, _announcement, _weights, *, after):
        self.asked += 1
        self.counted_after.append(after)
        return {"counts": np.arange(10, dtype=np.float32), "weight": 1.0}


class Town:
    """Three edges in folders of their own, in one epoch."""

    def __init__(self, folder, keys) -> None:
        self.folder, self.keys = folder, dict(zip(NAMES, keys, strict=True))
        self.roster = Roster.of(FederationId("hanse"), 1, [k.member(name) for name, k in self.keys.items()])
        self.lessons = {name: CountingLesson() for name in NAMES}
        self.ledgers = {}
        self.edges = {name: self.start(name) for name in NAMES}
        self.prekeys = self.open_epoch(CALL)

    def start(self, name):
        """A new process on the same disk."""
        place = self.folder / name
        place.mkdir(exist_ok=True)
        if name in self.ledgers:
            self.ledgers[name].close()
        self.ledgers[name] = Ledger(place / "state.db")
        return Participation(
            me=name,
            keys=self.keys[name],
            center=CENTER.public_key(),
            roster=lambda: self.roster,
            policy=PolicySettings(min_cohort=3, max_colluders=0),
            ledger=self.ledgers[name],
            ratchet=Ratchet(place / "ratchet"),
            spending=Spending(place / "spending.db", PrivacySettings(), rounds_per_day=200),
            lessons={"popularity": self.lessons[name]},
            now_ms=lambda: NOW,
        )

    def ask(self, name, action, document, papers=b"", weights=b""):
        return self.edges[name].answer(Request(action=action, document=document, papers=papers, weights=weights))

    def open_epoch(self, call):
        document = call.sign(CENTER)
        prekeys = {name: self.ask(name, Action.PREKEY, document).body for name in NAMES}
        inbox = {name: [] for name in NAMES}
        for name in NAMES:
            dealt = self.ask(name, Action.DEAL_ROOTS, document, binary.join(list(prekeys.values()))).body
            for root in binary.split(dealt):
                inbox[PairRoot.open(root, roster=self.roster).receiver].append(root)
        for name in NAMES:
            kept = self.ask(name, Action.KEEP_ROOTS, document, binary.join(inbox[name])).body
            assert canonical.decode(kept) == [other for other in NAMES if other != name]
        return tuple(sha256(prekeys[name]).digest() for name in NAMES)

    def asked(self, **changes):
        return replace(ASKED, prekeys=self.prekeys, **changes)

    def close(self):
        for ledger in self.ledgers.values():
            ledger.close()


@pytest.fixture(scope="module")
def keys() -> list[Keys]:
    return [Keys.generate() for _ in NAMES]


@pytest.fixture
def town(keys, tmp_path):
    town = Town(tmp_path, keys)
    yield town
    town.close()


@pytest.fixture
def lesson(town) -> CountingLesson:
    return town.lessons["bergen"]


@pytest.fixture
def answer(town):
    def answer(announcement, weights=WEIGHTS):
        return town.ask("bergen", Action.MASKED_UPDATE, announcement.sign(CENTER), weights=weights)

    return answer


ASKED = Announcement(
    federation=FederationId("hanse"),
    campaign="spring",
    round=5,
    key_epoch=1,
    roster_version=1,
    center_epoch=1,
    cohort=NAMES,
    prekeys=(bytes(32),) * 3,
    purpose=Purpose.POPULARITY,
    submodel="recommend",
    weights_sha256=sha256(WEIGHTS).digest(),
    window=1,
    layout=lessons.popularity_layout(9),
    clip=1.0,
    coordinate_clip=1.0,
    weight_cap=100,
    deadline_ms=NOW + 1,
)


def test_the_answer_is_signed_by_this_edge_for_this_announcement(town, answer, keys) -> None:
    update = MaskedUpdate.from_bytes(answer(town.asked()).body)
    assert (update.edge, update.announcement) == ("bergen", town.asked().digest())
    update.check(keys[0].identity.public_key())


def test_asked_again_it_sends_the_stored_bytes_and_computes_nothing(town, answer, lesson) -> None:
    first = answer(town.asked())
    town.edges["bergen"] = town.start("bergen")
    assert answer(town.asked()).body == first.body
    assert lesson.asked == 1


def test_an_answer_is_written_down_once_and_a_refusal_never(town, answer) -> None:
    written = []
    town.edges["bergen"] = replace(town.edges["bergen"], note=lambda asked: written.append(asked.round))
    for _ in range(2):
        answer(town.asked())
    answer(town.asked(campaign="autumn"))
    assert written == [town.asked().round]


def test_one_round_number_is_never_computed_for_two_announcements(town, answer, lesson) -> None:
    answer(town.asked())
    other = answer(town.asked(campaign="autumn"))
    assert "not newer than answered round 5" in other.error
    assert lesson.asked == 1


def test_a_round_begun_before_a_crash_is_dropped_not_computed_again(town, answer, lesson) -> None:
    town.ledgers["bergen"].begin(town.asked(), until=7, now_ms=NOW)
    assert answer(town.asked()).error is not None
    assert lesson.asked == 0


def test_one_question_has_one_answer_whatever_the_round(town, answer, lesson) -> None:
    """The same values summed over two sets of edges would give the difference away."""
    answer(town.asked())
    again = answer(town.asked(round=6))
    assert "answered this question in round 5" in again.error
    assert lesson.asked == 1


def test_the_next_window_counts_only_what_came_since(town, answer, lesson) -> None:
    answer(town.asked())
    lesson.events = 9
    answer(town.asked(round=6, window=2))
    assert lesson.counted_after == [0, 7]


def finish(town, announcement, *, silent=()):
    """Carry a round through all its steps, as a center does; ``silent`` edges say nothing."""
    round_ = Round.announce(announcement, roster=town.roster)
    document = announcement.sign(CENTER)
    for phase, action in (
        (Phase.MASKING, Action.MASKED_UPDATE),
        (Phase.SIGNING, Action.SIGN_SURVIVORS),
        (Phase.UNMASKING, Action.UNMASK),
    ):
        for name in set(round_.asked) - set(silent):
            papers = round_.unmask_request(name) if phase is Phase.UNMASKING else b""
            weights = WEIGHTS if phase is Phase.MASKING else b""
            reply = town.ask(name, action, document, papers, weights)
            round_ = round_.receive(name, phase, reply.body)
            town.edges[name] = town.start(name)
        round_ = round_.close_phase()
        document = round_.survivors.sign(CENTER)
    return round_


def test_edges_that_restart_after_every_step_still_come_to_the_sum(town) -> None:
    sums = finish(town, town.asked()).sums()
    assert np.array_equal(sums["counts"], 3 * np.arange(10))


def test_the_shares_of_a_round_are_gone_when_it_is_over(town) -> None:
    finish(town, town.asked())
    kept = Ratchet(town.folder / "bergen" / "ratchet").load()
    assert kept.round.opening_keys == {}
    assert kept.round.own_shares == ()
    assert kept.epoch.next_round == 6


def abandon(town, names, announcement):
    replies = {name: town.ask(name, Action.ABANDON, announcement.sign(CENTER)) for name in names}
    return {name: reply.body for name, reply in replies.items() if reply.body}


def reopen(town, announcement, abandonments):
    papers = binary.join(list(abandonments.values()))
    return town.ask("bergen", Action.REOPEN, announcement.sign(CENTER), papers)


def test_a_question_is_free_again_once_nobody_can_open_its_round(town, answer) -> None:
    answer(town.asked())
    signed = abandon(town, NAMES[:1], town.asked())
    assert reopen(town, town.asked(), signed).body == DONE
    assert answer(town.asked(round=6)).body is not None


def test_it_stays_answered_while_enough_edges_could_still_open_it(town, answer) -> None:
    answer(town.asked())
    assert "0 edges have given round 5 up, 1 are needed" in reopen(town, town.asked(), {}).error
    assert "answered this question" in answer(town.asked(round=6)).error


def test_an_abandonment_in_another_name_frees_nothing(town, answer, keys) -> None:
    answer(town.asked())
    forged = Abandonment.signed(town.asked().digest(), edge=EdgeId("visby"), key=keys[0].identity)
    assert reopen(town, town.asked(), {"visby": forged.to_bytes()}).error is not None


def test_an_edge_that_has_helped_to_open_a_round_never_says_it_gave_it_up(town) -> None:
    finish(town, town.asked())
    assert abandon(town, NAMES, town.asked()) == {}
    town.open_epoch(replace(CALL, epoch=2, first_round=6))
    assert abandon(town, NAMES, town.asked()) == {}


def test_an_edge_that_gave_a_round_up_opens_nothing_of_it(town) -> None:
    round_ = Round.announce(town.asked(), roster=town.roster)
    for name in NAMES:
        reply = town.ask(name, Action.MASKED_UPDATE, town.asked().sign(CENTER), weights=WEIGHTS)
        round_ = round_.receive(name, Phase.MASKING, reply.body)
    abandon(town, NAMES[:1], town.asked())
    survivors = round_.close_phase().survivors.sign(CENTER)
    assert "abandoned" in town.ask("bergen", Action.SIGN_SURVIVORS, survivors).error
    assert town.ask("visby", Action.SIGN_SURVIVORS, survivors).body is not None


def test_an_edge_without_the_epochs_keys_waits_for_the_next(town, answer) -> None:
    (town.folder / "bergen" / "ratchet").unlink()
    assert "takes part from the next" in answer(town.asked()).error
    town.prekeys = town.open_epoch(replace(CALL, epoch=2, first_round=5))
    assert answer(town.asked(key_epoch=2)).body is not None


def test_an_epoch_is_followed_once(town) -> None:
    again = replace(CALL, first_round=2).sign(CENTER)
    assert "epoch 1 is not newer" in town.ask("bergen", Action.PREKEY, again).error


def test_an_unknown_action_is_refused_by_name(town) -> None:
    assert "nothing here answers 'run-code'" in town.ask("bergen", "run-code", b"").error


@pytest.mark.parametrize(
    ("changes", "weights", "why"),
    [
        ({}, b"other weights", "not the announced ones"),
        ({"purpose": Purpose.TRAIN}, WEIGHTS, "nothing here answers"),
        ({"layout": lessons.popularity_layout(8)}, WEIGHTS, "layout"),
        ({"clip": 1e9}, WEIGHTS, "policy refuses a clip"),
        ({"weight_cap": 10**9}, WEIGHTS, "policy refuses a weight cap"),
        ({"key_epoch": 2}, WEIGHTS, "key epoch 2, this edge is in 1"),
        ({"round": 2000}, WEIGHTS, "1999 ahead"),
    ],
)
def test_a_refusal_uses_no_round_number_up(town, answer, lesson, changes, weights, why) -> None:
    assert why in answer(town.asked(**changes), weights).error
    assert lesson.asked == 0
    assert town.ledgers["bergen"].standing().last_round == 0


def test_a_restored_disk_does_not_bring_used_keys_back(town, answer) -> None:
    backup = shutil.copytree(town.folder / "bergen", town.folder / "backup")
    answer(town.asked())
    town.ledgers["bergen"].close()
    shutil.rmtree(town.folder / "bergen")
    shutil.copytree(backup, town.folder / "bergen", copy_function=shutil.copy)
    older = (town.folder / "bergen" / "ratchet").read_bytes()
    (town.folder / "bergen" / "ratchet").write_bytes(older.replace(b'"written_ms":1', b'"written_ms":0'))
    town.edges["bergen"] = town.start("bergen")
    assert "takes part from the next" in answer(town.asked()).error
