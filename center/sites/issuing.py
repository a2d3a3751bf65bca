"""Client certificates for edges: the first one when a site joins, each next one when the edge asks for it in time."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from center.sites import authority
from center.sites.certificates import Certificates
from protocol.errors import BadInputError, NotAdmittedError
from protocol.identity import EdgeId, Roster
from protocol.renewal import RenewalRequest

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Signs certificates and keeps the list of them."""

    certificates: Certificates
    authority: x509.Certificate
    authority_key: ec.EllipticCurvePrivateKey
    now_ms: Callable[[], int]

    def issue(self, edge: EdgeId, *, request: str) -> str:
        """Answer a certificate request in PEM; asking again gets the same answer.

        Raises:
            BadInputError: it cannot be read, its key was used before, or this edge has asked too often.
        """
        now_ms = self.now_ms()

        def make() -> x509.Certificate:
            return authority.client_certificate(
                edge,
                request=request,
                authority=self.authority,
                authority_key=self.authority_key,
                now=datetime.fromtimestamp(now_ms / 1000, UTC),
            )

        return self.certificates.issue(edge, key=_key_digest(request, edge), make=make, now_ms=now_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewals:
    """Answers `hanse-edge renew`.

    Attributes:
        roster: the one in force, read anew each time.
    """

    issuer: Issuer
    roster: Callable[[], Roster | None]

    def renew(self, body: bytes) -> bytes:
        """Answer a `RenewalRequest`.

        Returns:
            The new certificate in PEM.

        Raises:
            NotAdmittedError: the roster does not name who asks.
            BadSignatureError: it was not signed with that site's identity key.
            MalformedMessageError: not a request.
            BadInputError: see `Issuer.issue`.
        """
        edge = RenewalRequest.sender(body)
        roster = self._roster_with(edge)
        key = roster.member(edge).identity_key()
        request = RenewalRequest.open(body, key=key, federation=roster.federation)
        pem = self.issuer.issue(edge, request=request.certificate_request)
        try:
            self._roster_with(edge)
        except NotAdmittedError:  # removed while we signed: what `remove` has not seen must not count either
            self.issuer.certificates.revoke(edge, now_ms=self.issuer.now_ms())
            raise
        _log.info("certificate renewed", edge=edge)
        return pem.encode("ascii")

    def _roster_with(self, edge: EdgeId) -> Roster:
        roster = self.roster()
        if roster is None:
            raise NotAdmittedError("no roster has been signed")
        roster.member(edge)
        return roster


def _key_digest(request: str, edge: EdgeId) -> str:
    try:
        key = x509.load_pem_x509_csr(request.encode()).public_key()
    except ValueError as error:
        raise BadInputError(f"the certificate request of {edge} cannot be read") from error
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
