"""One content key for all, sealed to each edge alone; metadata encrypted under it (SPEC 9.4).

The key is sealed by HPKE (RFC 9180) with the hybrid KEM MLKEM768X25519: stored ciphertext must survive quantum
computers.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from protocol import canonical
from protocol.errors import BadSignatureError, MalformedMessageError, RollbackError, UntrustedError
from protocol.identity import EdgeId, FederationId, Label, open_document, sign_document

CONTENT_KEY_BYTES = 32
KEY_ID_BYTES = 8
NONCE_BYTES = 12
PUBLIC_KEY_BYTES = 1184 + 32
PRIVATE_KEY_BYTES = 64 + 32

_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_MLKEM_PUBLIC_BYTES = 1184
_MLKEM_SEED_BYTES = 64
_TAG_BYTES = 16

OVERHEAD_BYTES = KEY_ID_BYTES + NONCE_BYTES + _TAG_BYTES
"""How much longer `encrypt` makes a file."""


class SealingKey:
    """The private key that content keys are sealed to.

    Written as 96 bytes: the 64-byte ML-KEM-768 seed, then 32 bytes of X25519. The public half is 1,216 bytes: the
    ML-KEM encapsulation key, then the X25519 public key.
    """

    def __init__(self, mlkem: MLKEM768PrivateKey, x25519: X25519PrivateKey) -> None:
        self._mlkem = mlkem
        self._x25519 = x25519

    @classmethod
    def generate(cls) -> Self:
        """Draw a new key from the operating system."""
        return cls(MLKEM768PrivateKey.generate(), X25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a key back.

        Raises:
            ValueError: not 96 bytes.
        """
        if len(data) != PRIVATE_KEY_BYTES:
            raise ValueError(f"a sealing key has {PRIVATE_KEY_BYTES} bytes, not {len(data)}")
        return cls(
            MLKEM768PrivateKey.from_seed_bytes(data[:_MLKEM_SEED_BYTES]),
            X25519PrivateKey.from_private_bytes(data[_MLKEM_SEED_BYTES:]),
        )

    def to_bytes(self) -> bytes:
        return self._mlkem.private_bytes_raw() + self._x25519.private_bytes_raw()

    def public_bytes(self) -> bytes:
        """1,216 bytes, as the roster lists them."""
        return self._mlkem.public_key().public_bytes_raw() + self._x25519.public_key().public_bytes_raw()

    def open(self, sealed: bytes, *, info: bytes) -> bytes:
        """Open what was sealed to this key.

        Raises:
            UntrustedError: sealed to another key, for another purpose, or changed on the way.
        """
        try:
            return _SUITE.decrypt(sealed, MLKEM768X25519PrivateKey(self._mlkem, self._x25519), info)
        except (InvalidTag, ValueError) as error:
            raise UntrustedError("this was not sealed to this edge's key") from error


def seal(plaintext: bytes, *, public_key: bytes, info: bytes) -> bytes:
    """Seal a few bytes to one edge; 1,136 bytes longer than the plaintext.

    Args:
        public_key: 1,216 bytes, from the roster.
        info: what this is for; opening needs the same.

    Raises:
        MalformedMessageError: not a public sealing key.
    """
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise MalformedMessageError(f"a public sealing key has {PUBLIC_KEY_BYTES} bytes, not {len(public_key)}")
    try:
        key = MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(public_key[:_MLKEM_PUBLIC_BYTES]),
            X25519PublicKey.from_public_bytes(public_key[_MLKEM_PUBLIC_BYTES:]),
        )
        return _SUITE.encrypt(plaintext, key, info)
    except ValueError as error:
        raise MalformedMessageError("not a public sealing key") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentKey:
    """The key that releases and metadata are encrypted under.

    Attributes:
        number: counts up by one at each change of key; an edge never goes back.
        secret: 32 random bytes.
    """

    number: int
    secret: bytes

    def __post_init__(self) -> None:
        if len(self.secret) != CONTENT_KEY_BYTES or self.number < 1:
            raise MalformedMessageError(f"a content key has a number from 1 on and {CONTENT_KEY_BYTES} bytes")

    def __repr__(self) -> str:  # a secret must not end up in a log
        return f"ContentKey(number={self.number}, id={self.key_id.hex()})"

    @property
    def key_id(self) -> bytes:
        """8 bytes that name the key and give nothing away."""
        return self.derive(b"id")[:KEY_ID_BYTES]

    def derive(self, purpose: bytes) -> bytes:
        """32 bytes for one purpose. HKDF's extract step is left out: the secret is uniform already (RFC 5869, 3.3)."""
        return HKDFExpand(algorithm=hashes.SHA256(), length=32, info=b"hanse/1 " + purpose).derive(self.secret)


def seal_content_key(
    key: ContentKey, *, federation: FederationId, edge: EdgeId, public_key: bytes, signer: Ed25519PrivateKey
) -> bytes:
    """The document of topic ``key/<edge>``: sealed to the edge, signed by the center (SPEC 9.4)."""
    info = _content_key_info(federation, edge, key.number)
    content = {
        "federation": federation,
        "edge": edge,
        "number": key.number,
        "sealed": seal(key.secret, public_key=public_key, info=info).hex(),
    }
    return sign_document(Label.CONTENT_KEY, content, key=signer)


def open_content_key(
    data: bytes,
    *,
    federation: FederationId,
    edge: EdgeId,
    private_key: SealingKey,
    center_key: Ed25519PublicKey,
    known_number: int = 0,
) -> ContentKey:
    """Check and open one's own content key.

    Raises:
        MalformedMessageError: not such a document.
        BadSignatureError: not signed by this federation's center, or meant for another edge.
        RollbackError: older than the content key this edge already holds.
        UntrustedError: not sealed to this edge's key.
    """
    content = open_document(Label.CONTENT_KEY, data, key=center_key)
    match content:
        case {"federation": name, "edge": addressee, "number": int(number), "sealed": str(sealed), **rest} if not rest:
            pass
        case _:
            raise MalformedMessageError("not a sealed content key")
    if (name, addressee) != (federation, edge):
        raise BadSignatureError(f"this content key is for {addressee} of {name}, not for {edge} of {federation}")
    if number < known_number:
        raise RollbackError(f"content key {number} is older than the known content key {known_number}")
    try:
        raw = bytes.fromhex(sealed)
    except ValueError as error:
        raise MalformedMessageError("a sealed key is written in hexadecimal") from error
    return ContentKey(number=number, secret=private_key.open(raw, info=_content_key_info(federation, edge, number)))


def _content_key_info(federation: FederationId, edge: EdgeId, number: int) -> bytes:
    return b"hanse/1 content key\0" + canonical.encode([federation, edge, number])


def encrypt(plaintext: bytes, *, key: ContentKey, topic: str, nonce: bytes) -> bytes:
    """Encrypt one metadata file: ``key id || nonce || AES-256-GCM`` (SPEC 9.4).

    Args:
        topic: where it will be published; associated data, so that a broker cannot swap two files.
        nonce: 12 random bytes, never used twice.
    """
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce has {NONCE_BYTES} bytes")
    head = key.key_id + nonce
    return head + AESGCM(key.derive(b"metadata")).encrypt(nonce, plaintext, topic.encode())


def decrypt(data: bytes, *, key: ContentKey, topic: str) -> bytes:
    """Undo `encrypt`.

    Raises:
        MalformedMessageError: too short.
        UntrustedError: encrypted under another content key.
        BadSignatureError: changed, or published under another topic than it was made for.
    """
    if len(data) < KEY_ID_BYTES + NONCE_BYTES + _TAG_BYTES:
        raise MalformedMessageError(f"{topic} holds only {len(data)} bytes")
    key_id, rest = data[:KEY_ID_BYTES], data[KEY_ID_BYTES:]
    if key_id != key.key_id:
        raise UntrustedError(
            f"{topic} is encrypted under content key {key_id.hex()}, this edge holds {key.key_id.hex()}",
            advice="the center has to seal the newest content key to this edge",
        )
    try:
        return AESGCM(key.derive(b"metadata")).decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], topic.encode())
    except InvalidTag as error:
        raise BadSignatureError(f"{topic} was changed on the way") from error


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal, as manifests and topics write it."""
    return sha256(data).hexdigest()
