"""How an edge gets its next client certificate for the broker before the old one ends (SPEC 2.5).

The request is signed with the identity key that the roster names, so it needs no certificate that still counts: an edge
that was away for two years comes back. It carries no clock and no nonce: the answer to a request is a certificate for
the one key named in it, the same however often it is asked for, and of use only to whoever holds that key.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol import canonical
from protocol.errors import BadInputError, MalformedMessageError
from protocol.identity import EdgeId, FederationId, Label, edge_id, federation_id, open_document, sign_document

RENEWAL_PATH = "/v1/renew"
"""Where the gateway takes such requests."""

_RENEWED_PART = 3


def is_due(certificate: x509.Certificate, *, now: datetime) -> bool:
    """Is less than a third of its life left?"""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return ends - now < (ends - begins) / _RENEWED_PART


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalRequest:
    """An edge asks for a certificate for a new key.

    Attributes:
        certificate_request: PEM, signed by the new key.
    """

    federation: FederationId
    edge: EdgeId
    certificate_request: str

    def sign(self, key: Ed25519PrivateKey) -> bytes:
        content = {
            "federation": self.federation,
            "edge": self.edge,
            "certificate_request": self.certificate_request,
        }
        return sign_document(Label.RENEWAL, content, key=key)

    @classmethod
    def sender(cls, data: bytes) -> EdgeId:
        """Who says that it sent this: to look its key up, not to be believed.

        Raises:
            MalformedMessageError: not a request.
        """
        document = canonical.decode(data)
        return cls._from_content(
            document["content"] if isinstance(document, dict) and "content" in document else None
        ).edge

    @classmethod
    def open(cls, data: bytes, *, key: Ed25519PublicKey, federation: FederationId) -> Self:
        """Check and decode.

        Args:
            key: the identity key that the roster names for `sender`.

        Raises:
            MalformedMessageError: not a request of this federation.
            BadSignatureError: not signed by that key.
        """
        request = cls._from_content(open_document(Label.RENEWAL, data, key=key))
        if request.federation != federation:
            raise MalformedMessageError(f"this request is for federation {request.federation}, not {federation}")
        return request

    @classmethod
    def _from_content(cls, content: Any) -> Self:
        match content:
            case {"federation": str(name), "edge": str(edge), "certificate_request": str(request), **rest} if not rest:
                pass
            case _:
                raise MalformedMessageError("not a request for a certificate")
        try:
            return cls(federation=federation_id(name), edge=edge_id(edge), certificate_request=request)
        except BadInputError as error:
            raise MalformedMessageError(f"not a request for a certificate: {error}") from error
