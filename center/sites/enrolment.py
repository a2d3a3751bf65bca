"""Takes sites in: tokens out, public keys in. A site that joined is admitted only by the next signed roster."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from center.registry import Registry
from center.settings import BrokerSettings
from center.sites.issuing import Issuer
from protocol.enrolment import EnrolmentAnswer, EnrolmentRequest, secret_digest
from protocol.errors import BadInputError, MalformedMessageError

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reception:
    """Answers `hanse-edge join`.

    Attributes:
        register_node: tells the SuperLink a node's public key (DER).
        root: a TUF root by its number.
    """

    registry: Registry
    issuer: Issuer
    broker: BrokerSettings
    root: Callable[[int], bytes]
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
        self.registry.check_token(secret_digest(bearer), member=request.member, now_ms=now_ms)
        pem = self.issuer.issue(request.member.edge, request=request.certificate_request)
        # Before the token is used up: if SuperLink is away, the site can come again with the same one.
        self.register_node(request.member.node)
        self.registry.redeem(secret_digest(bearer), member=request.member, now_ms=now_ms)
        self.registry.add_site(request.member, certificate=pem, now_ms=now_ms)
        _log.info("site joined", edge=request.member.edge)
        root = self.root(self.registry.pinned_root(secret_digest(bearer))).decode("utf-8")
        return EnrolmentAnswer(
            certificate=pem, root=root, broker_host=self.broker.host, broker_port=self.broker.port
        ).to_bytes()
