import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol import canonical
from protocol.errors import BadInputError, BadSignatureError, MalformedMessageError, NotAdmittedError, RollbackError
from protocol.identity import EdgeId, FederationId, Label, Member, Roster, check, edge_id, sign

OFFLINE = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
HANSE = FederationId("hanse")


def member(name: str) -> Member:
    return Member(edge=EdgeId(name), identity=b"i" * 32, mask=b"m" * 32, seal=b"s", node=b"n")


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
