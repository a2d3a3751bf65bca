"""The center's keys. What signs rosters and TUF roots lies in `offline/`, to be carried off the machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from center import durable
from center.mqtt import content_keys
from center.sites import authority
from protocol.errors import BadInputError
from protocol.sealing import ContentKey

OFFLINE = "offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class CenterKeys:
    """What a running center needs.

    Attributes:
        center: Ed25519, signs announcements, wakes and content keys.
        authority_key: signs TLS certificates.
        roster_public: checks rosters; the private half is offline.
        content: what releases and their metadata are encrypted under.
    """

    center: Ed25519PrivateKey
    authority_key: ec.EllipticCurvePrivateKey
    authority: x509.Certificate
    roster_public: Ed25519PublicKey
    content: ContentKey

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read the keys of a center's folder.

        Raises:
            BadInputError: a key is missing or damaged.
        """
        try:
            return cls(
                center=load_signing_key(directory / "keys" / "center.key"),
                authority_key=load_tls_key(directory / "keys" / "ca.key"),
                authority=x509.load_pem_x509_certificate((directory / "trust" / "ca.crt").read_bytes()),
                roster_public=Ed25519PublicKey.from_public_bytes(
                    bytes.fromhex((directory / "trust" / "roster.pub").read_text("ascii").strip())
                ),
                content=content_keys.load(directory / "keys").newest,
            )
        except (OSError, ValueError) as error:
            raise BadInputError(f"the keys in {directory} cannot be read: {error}", advice=_RESTORE) from error


_RESTORE = "restore them from a backup; hanse-center doctor shows what is missing"


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """An Ed25519 private key.

    Raises:
        BadInputError: missing, damaged, or another kind of key.
    """
    key = _load(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInputError(f"{path} is no Ed25519 key", advice=_RESTORE)
    return key


def load_tls_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """An elliptic-curve private key for TLS.

    Raises:
        BadInputError: missing, damaged, or another kind of key.
    """
    key = _load(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadInputError(f"{path} is no elliptic-curve key", advice=_RESTORE)
    return key


def _load(path: Path) -> object:
    try:
        return load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError as error:
        raise BadInputError(f"{path} is missing", advice=_RESTORE) from error
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path} cannot be read: {error}", advice=_RESTORE) from error


def new_signing_key(path: Path) -> Ed25519PrivateKey:
    """Make an Ed25519 key and store it, mode 0600."""
    key = Ed25519PrivateKey.generate()
    durable.write(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), private=True)
    return key


def new_tls_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Make a P-256 key and store it, mode 0600."""
    key = authority.new_key()
    durable.write(path, authority.key_pem(key), private=True)
    return key


def new_public_key(path: Path, key: Ed25519PrivateKey) -> None:
    """Store the public half of a key: 64 hexadecimal digits."""
    durable.write(path, key.public_key().public_bytes_raw().hex().encode("ascii") + b"\n")


def load_public_key(path: Path) -> Ed25519PublicKey:
    """A public key as `new_public_key` stores it.

    Raises:
        BadInputError: missing, or something else.
    """
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(path.read_text("ascii").strip()))
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path} holds no public key: {error}", advice="hanse-center keys new-approver") from error
