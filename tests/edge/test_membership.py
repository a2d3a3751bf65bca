"""Whose word an edge takes for who is in."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.keys import Keys
from edge.membership import Membership
from protocol.errors import BadInputError, BadSignatureError, MalformedMessageError, NotAdmittedError, RollbackError
from protocol.identity import EdgeId, FederationId, Roster

OFFLINE = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
HANSE = FederationId("hanse")


@pytest.fixture(scope="module")
def member():
    return Keys.generate().member(EdgeId("visby"))


@pytest.fixture
def membership(tmp_path):
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust" / "roster.pub").write_text(OFFLINE.public_key().public_bytes_raw().hex() + "\n")
    return Membership(tmp_path, federation=HANSE)


def test_before_the_first_roster_the_operator_is_told_what_to_do(membership) -> None:
    with pytest.raises(NotAdmittedError) as refused:
        membership.roster()
    assert "hanse-center admit" in refused.value.line()


def test_an_accepted_roster_survives_a_restart(membership, member, tmp_path) -> None:
    roster = Roster.of(HANSE, 3, [member])
    membership.accept(roster.sign(OFFLINE))
    assert Membership(tmp_path, federation=HANSE).roster() == roster


def test_an_older_roster_brings_nobody_back(membership, member) -> None:
    membership.accept(Roster.of(HANSE, 3, []).sign(OFFLINE))
    with pytest.raises(RollbackError):
        membership.accept(Roster.of(HANSE, 2, [member]).sign(OFFLINE))
    assert membership.roster().members == ()


def test_two_rosters_of_one_version_do_not_take_turns(membership, member) -> None:
    membership.accept(Roster.of(HANSE, 3, []).sign(OFFLINE))
    membership.accept(Roster.of(HANSE, 3, [member]).sign(OFFLINE))
    assert membership.roster().members == ()


@pytest.mark.parametrize(
    ("signed", "error"),
    [
        (Roster.of(HANSE, 9, []).sign(Ed25519PrivateKey.from_private_bytes(b"x" * 32)), BadSignatureError),
        (Roster.of(FederationId("rhein"), 9, []).sign(OFFLINE), BadSignatureError),
        (b"{}", MalformedMessageError),
        (b"", MalformedMessageError),
    ],
)
def test_a_roster_from_elsewhere_changes_nothing(membership, signed, error) -> None:
    membership.accept(Roster.of(HANSE, 3, []).sign(OFFLINE))
    with pytest.raises(error):
        membership.accept(signed)
    assert membership.roster().version == 3


def test_without_the_pinned_key_nothing_is_believed(tmp_path) -> None:
    with pytest.raises(BadInputError, match=r"roster\.pub cannot be read"):
        Membership(tmp_path, federation=HANSE)
