import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.errors import BadInputError, BadSignatureError, MalformedMessageError, RollbackError
from protocol.identity import EdgeId, FederationId, Label, sign_document
from protocol.release import Ring
from protocol.rings import RingPolicy

FEDERATION = FederationId("hanse")
KEY = Ed25519PrivateKey.generate()
LUEBECK, BREMEN, VISBY = EdgeId("luebeck"), EdgeId("bremen"), EdgeId("visby")
POLICY = RingPolicy.of(FEDERATION, 3, canary=[LUEBECK], early=[BREMEN])


def reopened(data, *, known=0, federation=FEDERATION):
    return RingPolicy.open(data, key=KEY.public_key(), federation=federation, known_number=known)


def signed(**changes):
    content = {"federation": FEDERATION, "number": 3, "canary": ["luebeck"], "early": ["bremen"]}
    return sign_document(Label.RINGS, content | changes, key=KEY)


def test_who_is_not_named_is_in_ring_all():
    assert [POLICY.ring_of(edge) for edge in (LUEBECK, BREMEN, VISBY)] == [Ring.CANARY, Ring.EARLY, Ring.ALL]
    assert POLICY.members(Ring.ALL, [VISBY, LUEBECK]) == (VISBY,)


def test_a_policy_survives_its_signature():
    assert reopened(POLICY.sign(KEY), known=3) == POLICY


def test_an_older_policy_is_not_taken():
    with pytest.raises(RollbackError, match="policy 3 is older"):
        reopened(POLICY.sign(KEY), known=4)


def test_another_key_signs_no_policy():
    with pytest.raises(BadSignatureError):
        reopened(POLICY.sign(Ed25519PrivateKey.generate()))


def test_the_policy_of_another_federation_is_refused():
    with pytest.raises(BadSignatureError, match="for federation hanse"):
        reopened(POLICY.sign(KEY), federation=FederationId("rival"))


def test_a_site_is_in_one_ring():
    with pytest.raises(BadInputError, match="luebeck is named twice"):
        RingPolicy.of(FEDERATION, 1, canary=[LUEBECK], early=[LUEBECK])


@pytest.mark.parametrize(
    "changes",
    [
        {"number": 0},
        {"canary": ["visby", "luebeck"]},
        {"canary": ["luebeck", "luebeck"]},
        {"early": ["luebeck"]},
        {"canary": ["Lübeck"]},
        {"canary": [1]},
        {"late": []},
    ],
)
def test_what_is_no_policy_is_refused(changes):
    with pytest.raises(MalformedMessageError):
        reopened(signed(**changes))
