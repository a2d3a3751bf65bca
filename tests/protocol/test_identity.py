import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol import canonical
from protocol.errors import BadInputError, BadSignatureError, MalformedMessageError, NotAdmittedError, RollbackError
from protocol.identity import EdgeId, FederationId, Label, Member, Roster, check, edge_id, sign, sign_document

OFFLINE = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
HANSE = FederationId("hanse")


def member(name: str) -> Member:
    return Member(edge=EdgeId(name), identity=b"i" * 32, seal=b"s" * 1216, node=b"n")


@pytest.fixture
def signed() -> bytes:
    return Roster.of(HANSE, 4, [member("visby"), member("bergen")]).sign(OFFLINE)


def test_a_roster_comes_back_sorted(signed) -> None:
    roster = Roster.open(signed, key=OFFLINE.public_key(), federation=HANSE)
    assert [m.edge for m in roster.members] == ["bergen", "visby"]
    assert roster.member(EdgeId("visby")) == member("visby")


def test_a_site_outside_the_roster_is_not_admitted(signed) -> None:
    roster = Roster.open(signed, key=OFFLINE.public_key(), federation=HANSE)
    with pytest.raises(NotAdmittedError, match="danzig is not in roster 4"):
        roster.member(EdgeId("danzig"))


def test_a_roster_of_an_online_key_is_refused() -> None:
    forged = Roster.of(HANSE, 5, [member("sybil")]).sign(Ed25519PrivateKey.from_private_bytes(b"c" * 32))
    with pytest.raises(BadSignatureError):
        Roster.open(forged, key=OFFLINE.public_key(), federation=HANSE)


def test_a_roster_of_another_federation_is_refused(signed) -> None:
    with pytest.raises(BadSignatureError, match="of federation hanse"):
        Roster.open(signed, key=OFFLINE.public_key(), federation=FederationId("other"))


def test_an_older_roster_is_refused(signed) -> None:
    with pytest.raises(RollbackError, match="roster 4 is older than the accepted roster 5"):
        Roster.open(signed, key=OFFLINE.public_key(), federation=HANSE, known_version=5)


def test_a_signature_means_one_thing() -> None:
    signature = sign(Label.WAKE, b"body", key=OFFLINE)
    check(Label.WAKE, b"body", signature, key=OFFLINE.public_key())
    with pytest.raises(BadSignatureError):
        check(Label.CONTENT_KEY, b"body", signature, key=OFFLINE.public_key())


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"content":1}', b"[1,2]", b"\xff", b'{"signature":"","content":{}}'])
def test_what_is_no_document_is_malformed(damage) -> None:
    with pytest.raises(MalformedMessageError):
        Roster.open(damage, key=OFFLINE.public_key(), federation=HANSE)


@pytest.mark.parametrize("name", ["", "-a", "Visby", "a b", "a/b", "ä", "a" * 64, "../x", "a\n"])
def test_a_site_name_is_a_slug(name) -> None:
    with pytest.raises(BadInputError):
        edge_id(name)


@pytest.mark.parametrize("text", [b'{"a": 1}', b'{"b":1,"a":1}', b'{"a":1,"a":1}', b"1.0e1", b"NaN", b"[1,]", b"\x80"])
def test_json_has_one_form(text) -> None:
    with pytest.raises(MalformedMessageError):
        canonical.decode(text)


NAMES = [f"e{number:02}" for number in range(24)]
THREE = [NAMES[start::3] for start in range(3)]


def roster(names=NAMES, *, groups=None) -> Roster:
    return Roster.of(HANSE, 4, [member(name) for name in names], groups=groups)


def reopened(made: Roster) -> Roster:
    return Roster.open(made.sign(OFFLINE), key=OFFLINE.public_key(), federation=HANSE)


def test_two_hundred_sites_are_one_cohort_and_more_are_cut() -> None:
    one = roster([f"e{number:03}" for number in range(200)])
    assert [len(group) for group in one.groups] == [200]
    several = reopened(roster([f"e{number:03}" for number in range(401)]))
    assert [len(group) for group in several.groups] == [134, 134, 133]
    assert sorted(name for group in several.groups for name in group) == [m.edge for m in several.members]
    assert not several.robust


def test_groups_of_the_roster_are_robust_and_come_back_the_same() -> None:
    made = roster(groups=THREE)
    assert made.robust
    assert reopened(made) == made
    assert made.group_of(EdgeId("e04")) == tuple(NAMES[1::3])
    with pytest.raises(NotAdmittedError):
        made.group_of(EdgeId("danzig"))


@pytest.mark.parametrize(
    ("groups", "reason"),
    [
        ([NAMES[:12], NAMES[12:]], "at least 3 groups"),
        ([NAMES[:7], NAMES[7:15], NAMES[15:]], "at least 8 sites"),
        ([*THREE[:2], THREE[2][:-1]], "every member once"),
        ([*THREE, ["e00"]], "every member once"),
        ([*THREE[:2], [*THREE[2], "danzig"]], "every member once"),
    ],
)
def test_groups_that_would_show_too_much_are_not_made(groups, reason) -> None:
    with pytest.raises(BadInputError, match=reason):
        roster(groups=groups)


CONTENT = {
    "federation": "hanse",
    "version": 4,
    "members": [member(name).to_json() for name in NAMES],
    "groups": [list(group) for group in THREE],
    "robust": True,
}
BERGEN = member("bergen").to_json()


@pytest.mark.parametrize(
    "change",
    [
        {"groups": [NAMES]},
        {"groups": [NAMES[:12], NAMES[12:]]},
        {"groups": THREE[::-1]},
        {"groups": [THREE[0][::-1], *THREE[1:]]},
        {"groups": THREE[:2]},
        {"groups": [*THREE[:2], [7]]},
        {"groups": NAMES},
        {"robust": 1},
        {"version": "4"},
        {"members": CONTENT["members"][::-1]},
        {"members": [*CONTENT["members"], CONTENT["members"][-1]]},
        {"members": [{**BERGEN, "more": 1}], "groups": [["bergen"]], "robust": False},
        {"members": [{**BERGEN, "edge": "Bergen"}], "groups": [["Bergen"]], "robust": False},
        {"members": [{**BERGEN, "identity": "zz"}], "groups": [["bergen"]], "robust": False},
        {"members": [{**BERGEN, "identity": "AB" * 32}], "groups": [["bergen"]], "robust": False},
        {"members": [{**BERGEN, "identity": "00"}], "groups": [["bergen"]], "robust": False},
        {"members": [{**BERGEN, "node": 7}], "groups": [["bergen"]], "robust": False},
        {"more": 1},
    ],
    ids=lambda change: ", ".join(change) + " " + str(change)[-40:],
)
def test_a_roster_has_one_form(change) -> None:
    """Signed by the offline key itself: a signature makes nothing canonical."""
    with pytest.raises(MalformedMessageError):
        Roster.open(
            sign_document(Label.ROSTER, {**CONTENT, **change}, key=OFFLINE), key=OFFLINE.public_key(), federation=HANSE
        )


def test_a_plain_group_of_more_than_two_hundred_is_refused() -> None:
    names = [f"e{number:03}" for number in range(201)]
    content = {"members": [member(name).to_json() for name in names], "groups": [names], "robust": False}
    with pytest.raises(MalformedMessageError, match="at most 200"):
        Roster.open(
            sign_document(Label.ROSTER, {**CONTENT, **content}, key=OFFLINE), key=OFFLINE.public_key(), federation=HANSE
        )
