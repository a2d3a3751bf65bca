"""The keys of an edge: made by itself, readable by itself alone, never sent anywhere."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from edge import durable
from protocol.errors import BadInputError
from protocol.identity import EdgeId, Member
from protocol.sealing import SealingKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The private keys of one edge; that of its client certificate comes and goes (`edge.releases.renewal`).

    Attributes:
        identity: Ed25519, signs what the edge says.
        seal: opens content keys of releases.
        node: EC P-384, authenticates the Flower node.
    """

    identity: Ed25519PrivateKey
    seal: SealingKey
    node: ec.EllipticCurvePrivateKey

    @classmethod
    def generate(cls) -> Self:
        return cls(
            identity=Ed25519PrivateKey.generate(),
            seal=SealingKey.generate(),
            node=ec.generate_private_key(ec.SECP384R1()),
        )

    def save(self, folder: Path) -> None:
        """Write each key to a file of its own, mode 0600."""
        pems = {
            "identity": _pem(self.identity),
            "seal": self.seal.to_bytes(),
            "node": _pem(self.node),
        }
        for name, data in pems.items():
            durable.write(folder / f"{name}.key", data, private=True)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the keys back.

        Raises:
            BadInputError: a key is missing or damaged.
        """
        identity = _load(folder / "identity.key")
        node = _load(folder / "node.key")
        try:
            seal = SealingKey.from_bytes((folder / "seal.key").read_bytes())
        except (OSError, ValueError) as error:
            raise BadInputError(f"{folder / 'seal.key'} cannot be read: {error}", advice=_RESTORE) from error
        if isinstance(identity, Ed25519PrivateKey) and isinstance(node, ec.EllipticCurvePrivateKey):
            return cls(identity=identity, seal=seal, node=node)
        raise BadInputError(f"a key in {folder} is of another kind than its name says", advice=_RESTORE)

    def member(self, edge: EdgeId) -> Member:
        """The public halves, as the roster will list them."""
        return Member(
            edge=edge,
            identity=self.identity.public_key().public_bytes_raw(),
            seal=self.seal.public_bytes(),
            node=self.node.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        )


_RESTORE = "restore the keys folder, or join again in a new folder"


def load_public(path: Path) -> Ed25519PublicKey:
    """An Ed25519 public key stored as 32 raw bytes in hexadecimal.

    Raises:
        BadInputError: missing or damaged.
    """
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(path.read_text("ascii").strip()))
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path} cannot be read: {error}", advice=_RESTORE) from error


def _pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _load(path: Path) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path} cannot be read: {error}", advice=_RESTORE) from error
