"""Attacks on giving rounds up: a question must not become free while its round can still be opened (SPEC 8)."""

import pytest

from protocol.announcement import Purpose
from protocol.errors import OutOfTurnError, PeerMisbehavedError, TooFewSurvivorsError
from protocol.masked_update import Phase
from protocol.messages import Abandonment
from protocol.transport import Action

NEEDED = 3
"""Of five with a threshold of four and one colluder: if three have given up and one of them lies, three can open."""


@pytest.fixture
def stuck(sites):
    """A round that all five have uploaded for, and that then went no further."""
    asked = sites.asked()
    sites.play(asked, sign=())
    return asked


def words(sites, asked, names) -> list[bytes]:
    return [sites.abandon(name, asked).body for name in names]


def is_free(sites, name="bergen") -> bool:
    return sites.update(name, sites.asked(round=6)).body is not None


def test_a_question_is_free_when_nobody_can_open_its_round(sites, stuck) -> None:
    assert not is_free(sites)
    assert sites.reopen("bergen", stuck, words(sites, stuck, sites.names[2:])).body == b"done"
    assert is_free(sites)


@pytest.mark.parametrize("count", range(NEEDED))
def test_abandonments_of_too_few(sites, stuck, count) -> None:
    given = words(sites, stuck, sites.names[:count])
    assert f"{count} edges have given round 5 up, {NEEDED} are needed" in sites.reopen("kampen", stuck, given).error
    assert not is_free(sites, "kampen")


def test_abandonments_of_one_counted_often(sites, stuck) -> None:
    one = words(sites, stuck, ["luebeck"])
    assert "1 edges have given" in sites.reopen("bergen", stuck, one * 5).error
    assert not is_free(sites)


@pytest.mark.parametrize("forger", ["the center", "another site"])
def test_abandonments_that_are_forged(sites, stuck, forger) -> None:
    """In the name of kampen, which has never given anything up."""
    key = sites.center if forger == "the center" else sites.keys["luebeck"].identity
    forged = Abandonment.signed(stuck.digest(), edge="kampen", key=key).to_bytes()
    given = [*words(sites, stuck, ["danzig", "luebeck"]), forged]
    assert "the signature on this abandonment is wrong" in sites.reopen("bergen", stuck, given).error
    assert not is_free(sites)


def test_abandonments_of_a_stranger(sites, stuck) -> None:
    stranger = Abandonment.signed(stuck.digest(), edge="sybil", key=sites.center).to_bytes()
    given = [*words(sites, stuck, ["danzig", "luebeck"]), stranger]
    assert "sybil has given up another round" in sites.reopen("bergen", stuck, given).error
    assert not is_free(sites)


def test_abandonments_of_another_round(sites, stuck) -> None:
    """Real words of all five, but about a round that never was."""
    other = sites.asked(round=6, window=1)
    given = words(sites, other, sites.names[1:])
    assert all(given)
    assert "has given up another round" in sites.reopen("bergen", stuck, given).error
    assert not is_free(sites)


@pytest.mark.usefixtures("stuck")
def test_abandonments_of_a_round_with_the_same_number(sites) -> None:
    """The center announces round 5 a second time in other words, to those that have not seen the first."""
    twin = sites.asked(window=1)
    given = words(sites, twin, sites.names)
    assert all(given)  # the number is used up, so nobody will ever begin the twin
    assert sites.reopen("bergen", twin, given).body == b"done"  # of the twin, which bergen has not answered
    assert not is_free(sites)


def test_an_edge_that_has_opened_a_round_never_says_it_gave_it_up(sites) -> None:
    asked = sites.asked()
    sites.play(asked)
    for restart in (False, True):
        for name in sites.names:
            if restart:
                sites.start(name)
            assert "has been opened, it cannot be given up" in sites.abandon(name, asked).error


def test_an_edge_that_has_opened_a_round_never_says_it_gave_it_up_when_its_secrets_are_gone(sites) -> None:
    """The reply may have left before a crash: the ledger knows, even if the ratchet does not."""
    asked = sites.asked()
    sites.play(asked)
    (sites.place("bergen") / "ratchet").unlink()
    assert "has been opened" in sites.abandon("bergen", asked).error


def test_an_edge_that_has_opened_a_round_and_begun_the_next_never_says_it_gave_it_up(sites) -> None:
    asked = sites.asked()
    sites.play(asked)
    sites.play(sites.asked(round=6, purpose=Purpose.POPULARITY, window=1), sign=())
    assert "has been opened" in sites.abandon("bergen", asked).error


@pytest.mark.parametrize("stage", ["uploaded", "signed"])
def test_an_edge_that_gave_a_round_up_opens_nothing_of_it(sites, stage) -> None:
    asked = sites.asked()
    round_ = sites.play(asked, sign=sites.names if stage == "signed" else (), unmask=())
    assert sites.abandon("bergen", asked).body
    if stage == "uploaded":
        round_ = round_.close_phase()
    survivors = round_.survivors.sign(sites.center)
    assert "is abandoned here" in sites.ask("bergen", Action.SIGN_SURVIVORS, survivors).error
    if stage == "signed":
        request = round_.close_phase().unmask_request("bergen")
        for _ in range(2):
            assert "is abandoned here" in sites.ask("bergen", Action.UNMASK, survivors, request).error
            sites.start("bergen")


def test_an_edge_that_gave_a_round_up_before_it_began_never_begins_it(sites) -> None:
    asked = sites.asked()
    assert sites.abandon("bergen", asked).body
    assert "not newer" in sites.update("bergen", asked).error
    assert sites.lessons["bergen"].asked == 0


def test_an_edge_gives_up_only_rounds_that_it_is_in(sites) -> None:
    asked = sites.asked(cohort=sites.names[1:])
    assert "has no part" in sites.abandon("bergen", asked).error


def test_an_edge_gives_an_old_round_up_without_losing_the_one_in_flight(sites) -> None:
    """Its keys of the old one went when it began the next, so it can promise; the next must not suffer."""
    sites.play(sites.asked(), sign=())
    sites.start("bergen")
    later = sites.asked(round=6, purpose=Purpose.POPULARITY, window=1)
    round_ = sites.play(later, sign=(), unmask=()).close_phase()
    assert sites.abandon("bergen", sites.asked()).body
    assert sites.ask("bergen", Action.SIGN_SURVIVORS, round_.survivors.sign(sites.center)).body


def test_giving_up_and_opening_exclude_each_other_at_the_protocol_itself(world) -> None:
    play = world.play().upload(world.names[:4]).sign()
    identity = world.towns["bergen"].identity
    given_up, _ = play.turns["bergen"].abandon(identity_key=identity)
    assert given_up.phase is Phase.ABANDONED
    play.opened("bergen")
    with pytest.raises(PeerMisbehavedError, match="has been opened, it cannot be given up"):
        play.turns["bergen"].abandon(identity_key=identity)
    play.turns["bergen"] = given_up
    with pytest.raises(OutOfTurnError, match="round 7 is abandoned here"):
        play.opened("bergen")
    with pytest.raises(OutOfTurnError, match="round 7 is abandoned here"):
        play.signature("bergen")


def test_with_enough_abandonments_no_sum_comes_out(world) -> None:
    """Three of five have given up. One of them lied and still helps the center, as do the two others: not enough."""
    play = world.play().upload().sign()
    for name in ("danzig", "kampen"):
        play.turns[name], _ = play.turns[name].abandon(identity_key=world.towns[name].identity)
    lied = play.turns["luebeck"]
    assert lied.abandon(identity_key=world.towns["luebeck"].identity)
    play.unmask(["bergen", "bruges", "luebeck"], close=False)
    with pytest.raises(TooFewSurvivorsError, match="3 unmaskings came from 5 edges, 4 are needed"):
        play.round.close_phase()
