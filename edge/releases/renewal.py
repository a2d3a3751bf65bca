"""The edge's client certificate for the broker, and the next one before it ends.

Key and certificate lie in one file, ``keys/tls.pem``, replaced in one rename: whatever kills this process, they match.
"""

import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from edge import durable
from edge.keys import Keys
from edge.settings import EdgeSettings
from protocol.errors import BadInputError, BadSignatureError, FederationError, NotAdmittedError, UnavailableError
from protocol.identity import EdgeId, edge_id, federation_id
from protocol.renewal import RENEWAL_PATH, RenewalRequest, is_due

PAIR = Path("keys") / "tls.pem"
AUTHORITY = Path("trust") / "ca.crt"

_log = structlog.get_logger(__name__)
_TIMEOUT_SECONDS = 30.0
_LOOK_SECONDS = 60 * 60.0
_REST_SECONDS = 24 * 60 * 60.0
_NOT_FOUND, _OK, _BAD = 404, 200, 400


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key for one client certificate."""
    return ec.generate_private_key(ec.SECP256R1())


def certificate_request(edge: EdgeId, key: ec.EllipticCurvePrivateKey) -> str:
    """PEM request for the broker's client certificate."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, edge)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode("ascii")


def keep(directory: Path, pem: str, *, key: ec.EllipticCurvePrivateKey, authority: x509.Certificate) -> None:
    """Store a certificate with its key, after checking that it is for this key and from this authority.

    Raises:
        BadSignatureError: it is not.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        certificate.verify_directly_issued_by(authority)
    except Exception as error:
        raise BadSignatureError("the client certificate is not from this federation's authority") from error
    if certificate.public_key() != key.public_key():
        raise BadSignatureError("the client certificate is for another key")
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    durable.write(directory / PAIR, private + certificate.public_bytes(Encoding.PEM), private=True)


def read(directory: Path) -> x509.Certificate:
    """The certificate in use.

    Raises:
        BadInputError: missing or damaged.
    """
    path = directory / PAIR
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path} cannot be read: {error}", advice="hanse-edge renew") from error


def renew(directory: Path, settings: EdgeSettings) -> x509.Certificate:
    """Make a new key, get a certificate for it through the gateway, and put both in the place of the old ones.

    Raises:
        UnavailableError: the center does not answer.
        NotAdmittedError: it gives this site no certificate.
        BadSignatureError: it is not the center that this edge joined, or its answer is no certificate of ours.
        BadInputError: a key of this edge is missing or damaged, or it has joined no federation.
    """
    gateway, edge = settings.tied().gateway, edge_id(settings.site.name)
    key = new_key()
    request = RenewalRequest(
        federation=federation_id(settings.site.federation),
        edge=edge,
        certificate_request=certificate_request(edge, key),
    )
    authority_path = directory / AUTHORITY
    try:
        authority = x509.load_pem_x509_certificate(authority_path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInputError(f"{authority_path} cannot be read: {error}", advice="restore it from a backup") from error
    body = request.sign(Keys.load(directory / "keys").identity)
    keep(directory, _ask(gateway, body, authority=authority_path), key=key, authority=authority)
    return read(directory)


def _ask(gateway: str, body: bytes, *, authority: Path) -> str:
    context = ssl.create_default_context(cafile=str(authority))
    try:
        with httpx.Client(verify=context, timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
            response = client.post(f"{gateway}{RENEWAL_PATH}", content=body)
    except httpx.HTTPError as error:
        if "certificate" in str(error).lower():
            raise BadSignatureError(f"{gateway} is not of this federation") from error
        raise UnavailableError(
            f"the center at {gateway} does not answer: {error}", advice="it is asked again within the hour"
        ) from error
    if response.status_code == _NOT_FOUND:
        raise NotAdmittedError("the center gives this site no certificate", advice="has it been removed?")
    if response.status_code == _BAD:
        raise NotAdmittedError(f"the center gives no certificate: {response.text.strip()[:200]}")
    if response.status_code != _OK:
        raise UnavailableError(f"the center answers {response.status_code}: {response.text.strip()[:200]}")
    return response.text


class Renewal:
    """Looks every hour, beside `hanse-edge serve`, whether it is time."""

    def __init__(self, directory: Path, settings: EdgeSettings, *, renewed: Callable[[], None]) -> None:
        """Prepare; nothing runs yet.

        Args:
            renewed: called on this object's thread when there is a new certificate.
        """
        self._directory, self._settings, self._renewed = directory, settings, renewed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="renewal", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let it end; what it is about to write is whole or not there."""
        self._stop.set()

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            pause = _LOOK_SECONDS
            try:
                if self.look(datetime.now(UTC)):
                    pause = _REST_SECONDS  # by a clock that is a year ahead it would be time again at once
            except (FederationError, OSError) as error:
                _log.warning("the client certificate is not renewed", why=str(error))

    def look(self, now: datetime) -> bool:
        """Renew if less than a third of the certificate's life is left.

        Returns:
            Whether it was renewed.
        """
        if not is_due(read(self._directory), now=now):
            return False
        certificate = renew(self._directory, self._settings)
        _log.info("the client certificate is renewed", until=f"{certificate.not_valid_after_utc:%Y-%m-%d}")
        self._renewed()
        return True
