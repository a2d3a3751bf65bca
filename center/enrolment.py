"""Takes sites in: tokens out, public keys in. A site that joined is admitted only by the next signed roster."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from center import authority
from center.registry import Registry
from center.settings import BrokerSettings
from protocol.enrolment import EnrolmentAnswer, EnrolmentRequest, secret_digest
from protocol.errors import BadInputError, MalformedMessageError

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reception:
    """Answers `hanse-edge join`.

    Attributes:
        register_node: tells the SuperLink a node's public key (DER).
        root: the first TUF root, as JSON text.
    """

    registry: Registry
    authority: x509.Certificate
    authority_key: ec.EllipticCurvePrivateKey
    broker: BrokerSettings
    root: str
    register_node: Callable[[bytes], None]
    now_ms: Callable[[], int]

    def enroll(self, bearer: str, body: bytes) -> bytes:
        """Redeem a token and take the site's keys.

        Args:
            bearer: the token's secret as it came in the Authorization header.
            body: an `EnrolmentRequest`.

        Raises:
            UntrustedError: the token is wrong, used or expired.
            BadInputError: the request behind a token cannot be read.
        """
        now_ms = self.now_ms()
        # The token comes first: whoever has none must not learn that there is anything to send it to.
        self.registry.check_token(secret_digest(bearer), now_ms=now_ms)
        try:
            request = EnrolmentRequest.open(body)
        except MalformedMessageError as error:
            raise BadInputError(str(error)) from error
        certificate = authority.client_certificate(
            request.member.edge,
            request=request.certificate_request,
            authority=self.authority,
            authority_key=self.authority_key,
            now=datetime.fromtimestamp(now_ms / 1000, UTC),
        )
        # Before the token is used up: if SuperLink is away, the site can come again with the same one.
        self.registry.check_token(secret_digest(bearer), member=request.member, now_ms=now_ms)
        self.register_node(request.member.node)
        self.registry.redeem(secret_digest(bearer), member=request.member, now_ms=now_ms)
        pem = certificate.public_bytes(Encoding.PEM).decode("ascii")
        self.registry.add_site(request.member, certificate=pem, now_ms=now_ms)
        _log.info("site joined", edge=request.member.edge)
        return EnrolmentAnswer(
            certificate=pem, root=self.root, broker_host=self.broker.host, broker_port=self.broker.port
        ).to_bytes()
