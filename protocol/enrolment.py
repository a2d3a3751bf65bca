"""How a site is admitted: token, request, answer (SPEC 2.4).

The token goes from operator to operator outside the network and pins everything the edge must trust: the certificate
authority, the offline roster key, the center's key and the newest TUF root. The network is trusted with nothing.
"""

import base64
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import Any, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol import canonical
from protocol.errors import BadInputError, BadSignatureError, MalformedMessageError
from protocol.identity import EdgeId, FederationId, Member, edge_id, federation_id

_PREFIX = "hanse1."
_PROOF_LABEL = b"hanse/1 enrolment\0"
SECRET_BYTES = 32
_CHECKSUM_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What an operator hands to a site, once.

    Attributes:
        gateway: https address of the center.
        authority: DER certificate of the federation's certificate authority.
        roster_key: 32 bytes, Ed25519, kept offline: signs rosters.
        center_key: 32 bytes, Ed25519: signs announcements and content keys.
        root_sha256: 32 bytes, of the TUF root that was newest when it was made.
        secret: 32 random bytes; the center keeps only their digest.
    """

    federation: FederationId
    site: EdgeId
    gateway: str
    authority: bytes
    roster_key: bytes
    center_key: bytes
    root_sha256: bytes
    secret: bytes

    def to_text(self) -> str:
        """One line without spaces."""
        value = {f.name: getattr(self, f.name) for f in fields(self)}
        body = canonical.encode({k: v.hex() if isinstance(v, bytes) else v for k, v in value.items()})
        return _PREFIX + base64.urlsafe_b64encode(body + _checksum(body)).decode("ascii").rstrip("=")

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read a token as it was pasted.

        Raises:
            BadInputError: mistyped, cut short, or something else altogether.
        """
        advice = "paste the whole line that hanse-center enroll printed"
        text = "".join(text.split())
        if not text.startswith(_PREFIX):
            raise BadInputError("this is not a token", advice=advice)
        rest = text.removeprefix(_PREFIX)
        try:
            data = base64.b64decode(rest + "=" * (-len(rest) % 4), altchars=b"-_", validate=True)
            body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
            if checksum != _checksum(body):
                raise BadInputError("the checksum does not fit")  # noqa: TRY301 - one way out for all damage
            value = canonical.decode(body)
            token = cls(
                federation=federation_id(value.pop("federation")),
                site=edge_id(value.pop("site")),
                gateway=str(value.pop("gateway")),
                **{name: bytes.fromhex(text) for name, text in value.items()},
            )
        except (AttributeError, KeyError, MalformedMessageError, BadInputError, TypeError, ValueError) as error:
            raise BadInputError("this token is damaged", advice=advice) from error
        if token.to_text() != text:
            raise BadInputError("this token is damaged", advice=advice)
        return token

    def bearer(self) -> str:
        """How the secret travels in an Authorization header."""
        return self.secret.hex()


def _checksum(body: bytes) -> bytes:
    """Against slips of the hand, not against an attacker: a wrong pinned key would show much later and far away."""
    return sha256(body).digest()[:_CHECKSUM_BYTES]


def secret_digest(bearer: str) -> str:
    """What the center remembers of a token: SHA-256 of its secret, in hexadecimal."""
    return sha256(bearer.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentRequest:
    """A site's public keys and the proof that it holds the identity key.

    Attributes:
        member: the public keys; `member.edge` is the site.
        certificate_request: PEM, for the client certificate that the broker asks for.
    """

    member: Member
    certificate_request: str

    def sign(self, key: Ed25519PrivateKey) -> bytes:
        content = {"member": self.member.to_json(), "certificate_request": self.certificate_request}
        proof = key.sign(_PROOF_LABEL + canonical.encode(content))
        return canonical.encode({"content": content, "proof": proof.hex()})

    @classmethod
    def open(cls, data: bytes) -> Self:
        """Decode and check the proof.

        Raises:
            MalformedMessageError: not a request.
            BadSignatureError: the proof does not fit the identity key it names.
        """
        match canonical.decode(data):
            case {
                "content": {"member": member, "certificate_request": str(csr), **more} as content,
                "proof": str(proof),
                **rest,
            } if not more and not rest:
                request = cls(member=Member.from_json(member), certificate_request=csr)
            case _:
                raise MalformedMessageError("not an enrolment request")
        _check_proof(request.member, content, proof)
        return request


def _check_proof(member: Member, content: Any, proof: str) -> None:
    try:
        raw = bytes.fromhex(proof)
        if raw.hex() != proof:
            raise MalformedMessageError("a proof is written in lower-case hexadecimal")
        key = Ed25519PublicKey.from_public_bytes(member.identity)
        key.verify(raw, _PROOF_LABEL + canonical.encode(content))
    except (ValueError, InvalidSignature) as error:
        raise BadSignatureError("the proof does not fit the identity key") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentAnswer:
    """What the center gives a site that it takes.

    Attributes:
        certificate: PEM client certificate for the broker, its common name the site's.
        root: the TUF root, whose digest the token pins.
    """

    certificate: str
    root: str
    broker_host: str
    broker_port: int

    def to_bytes(self) -> bytes:
        return canonical.encode({f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode.

        Raises:
            MalformedMessageError: not an answer.
        """
        match canonical.decode(data):
            case {
                "certificate": str(certificate),
                "root": str(root),
                "broker_host": str(host),
                "broker_port": int(port),
                **rest,
            } if not rest:
                return cls(certificate=certificate, root=root, broker_host=host, broker_port=port)
        raise MalformedMessageError("not an enrolment answer")
