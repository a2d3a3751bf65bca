import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol import canonical
from protocol.errors import (
    BadSignatureError,
    MalformedMessageError,
    RollbackError,
    UntrustedError,
)
from protocol.identity import EdgeId, FederationId, Label, sign_document
from protocol.sealing import (
    PUBLIC_KEY_BYTES,
    ContentKey,
    SealingKey,
    decrypt,
    encrypt,
    open_content_key,
    seal,
    seal_content_key,
)

FEDERATION = FederationId("hanse")
LUEBECK, BREMEN = EdgeId("luebeck"), EdgeId("bremen")
KEY = ContentKey(number=2, secret=bytes(range(32)))
TOPIC = "hanse/1/hanse/tuf/timestamp.json"


@pytest.fixture(scope="module")
def center():
    return Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)


@pytest.fixture(scope="module")
def luebeck():
    return SealingKey.from_bytes(b"\x02" * 96)


@pytest.fixture(scope="module")
def sealed(center, luebeck):
    return seal_content_key(KEY, federation=FEDERATION, edge=LUEBECK, public_key=luebeck.public_bytes(), signer=center)


def opened(data, *, center, key, edge=LUEBECK, federation=FEDERATION, known_number=0):
    return open_content_key(
        data,
        federation=federation,
        edge=edge,
        private_key=key,
        center_key=center.public_key(),
        known_number=known_number,
    )


def test_a_sealed_content_key_reaches_its_edge(center, luebeck, sealed):
    assert opened(sealed, center=center, key=luebeck) == KEY


def test_a_stored_key_opens_what_was_sealed_before_the_restart(center, luebeck, sealed):
    assert opened(sealed, center=center, key=SealingKey.from_bytes(luebeck.to_bytes())) == KEY
    assert len(luebeck.public_bytes()) == PUBLIC_KEY_BYTES


def test_another_edge_cannot_open_it(center, sealed):
    with pytest.raises(UntrustedError, match="not sealed to this edge's key"):
        opened(sealed, center=center, key=SealingKey.generate())


def test_a_key_for_one_edge_is_not_taken_by_another(center, luebeck, sealed):
    with pytest.raises(BadSignatureError, match="for luebeck of hanse, not for bremen"):
        opened(sealed, center=center, key=luebeck, edge=BREMEN)


def test_a_key_of_another_federation_is_refused(center, luebeck, sealed):
    with pytest.raises(BadSignatureError):
        opened(sealed, center=center, key=luebeck, federation=FederationId("rhein"))


def test_a_key_signed_by_a_stranger_is_refused(luebeck, sealed):
    with pytest.raises(BadSignatureError):
        opened(sealed, center=Ed25519PrivateKey.generate(), key=luebeck)


def test_an_older_content_key_is_not_taken_again(center, luebeck, sealed):
    with pytest.raises(RollbackError, match="content key 2 is older than the known content key 3"):
        opened(sealed, center=center, key=luebeck, known_number=3)


def test_a_sealed_key_relabelled_by_a_corrupt_signer_does_not_open(center, luebeck, sealed):
    content = canonical.decode(sealed)["content"]
    forged = sign_document(Label.CONTENT_KEY, {**content, "number": 9}, key=center)
    with pytest.raises(UntrustedError):  # the number is bound into the seal as well
        opened(forged, center=center, key=luebeck)


@pytest.mark.parametrize("public", [b"", b"\x00" * 1215, b"\xff" * 1216])
def test_what_is_no_public_key_is_refused(public):
    with pytest.raises(MalformedMessageError):
        seal(b"secret", public_key=public, info=b"")


def test_a_secret_does_not_end_up_in_a_log():
    assert KEY.secret.hex() not in repr(KEY)
    assert str(KEY.secret) not in repr(KEY)


def test_a_broker_cannot_swap_two_metadata_files():
    payload = encrypt(b"{}", key=KEY, topic=TOPIC, nonce=b"n" * 12)
    assert decrypt(payload, key=KEY, topic=TOPIC) == b"{}"
    with pytest.raises(BadSignatureError):
        decrypt(payload, key=KEY, topic=TOPIC.replace("timestamp", "snapshot"))


@pytest.mark.parametrize("place", [9, 25, -1])
def test_a_changed_bit_in_metadata_is_noticed(place):
    payload = bytearray(encrypt(b"{}", key=KEY, topic=TOPIC, nonce=b"n" * 12))
    payload[place] ^= 1
    with pytest.raises(BadSignatureError):
        decrypt(bytes(payload), key=KEY, topic=TOPIC)


def test_the_wrong_content_key_is_named_in_the_error():
    other = ContentKey(number=3, secret=b"\x07" * 32)
    with pytest.raises(UntrustedError, match=KEY.key_id.hex()):
        decrypt(encrypt(b"{}", key=KEY, topic=TOPIC, nonce=b"n" * 12), key=other, topic=TOPIC)


@pytest.mark.parametrize("size", [0, 8, 35])
def test_a_cut_off_envelope_is_refused(size):
    with pytest.raises(MalformedMessageError):
        decrypt(bytes(size), key=KEY, topic=TOPIC)
