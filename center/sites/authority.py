"""The federation's certificate authority: who may speak TLS with whom. It names machines; trust in models is TUF's."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocol.errors import BadInputError
from protocol.identity import EdgeId, FederationId

_AUTHORITY_LIFE = timedelta(days=3650)
_SERVER_LIFE = timedelta(days=397)
_CLIENT_LIFE = timedelta(days=397)
_REVOCATION_LIFE = timedelta(days=397)  # OpenSSL lets nobody in once the list has ended
_CLOCK_SKEW = timedelta(minutes=10)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key for TLS: P-256, which every broker and browser speaks."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def create(federation: FederationId, *, key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    """A self-signed authority for one federation."""
    # A common name holds 64 characters and a federation's name may have 63.
    names = {NameOID.ORGANIZATION_NAME: "Hanse federation", NameOID.COMMON_NAME: federation}
    name = x509.Name([x509.NameAttribute(oid, text) for oid, text in names.items()])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        _builder(name, name, now=now, life=_AUTHORITY_LIFE)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def server_certificate(
    hosts: tuple[str, ...],
    *,
    public_key: ec.EllipticCurvePublicKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.Certificate:
    """A certificate for the gateway and the broker.

    Args:
        hosts: names and addresses that clients will ask for.

    Raises:
        BadInputError: a host is neither a name nor an address that a certificate can hold.
    """
    try:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
    except ValueError as error:
        raise BadInputError(f"{hosts[0]!r} cannot stand in a certificate: {error}", advice="use plain ASCII") from error
    return (
        _builder(subject, authority.subject, now=now, life=_SERVER_LIFE)
        .public_key(public_key)
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_authority_identifier(authority_key), critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def client_certificate(
    name: EdgeId,
    *,
    request: str,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.Certificate:
    """Answer a certificate request; the common name is ours to give, whatever the request says.

    Raises:
        BadInputError: not a request, or not signed by its own key.
    """
    try:
        asked = x509.load_pem_x509_csr(request.encode())
        valid = asked.is_signature_valid
    except ValueError as error:
        raise BadInputError(f"the certificate request of {name} cannot be read") from error
    public_key = asked.public_key()
    if not valid or not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise BadInputError(f"the certificate request of {name} is not signed by an elliptic-curve key of its own")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        _builder(subject, authority.subject, now=now, life=_CLIENT_LIFE)
        .public_key(public_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(_authority_identifier(authority_key), critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def revocation_list(
    revoked: Mapping[int, datetime],
    *,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.CertificateRevocationList:
    """The certificates that count no more, by serial number, and since when."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(now - _CLOCK_SKEW)
        .next_update(now + _REVOCATION_LIFE)
        .add_extension(_authority_identifier(authority_key), critical=False)
    )
    for serial, since in sorted(revoked.items()):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(authority_key, hashes.SHA256())


def request_for(name: EdgeId, key: ec.EllipticCurvePrivateKey) -> str:
    """A certificate request in PEM, for the center's own client certificate."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode("ascii")


def _builder(subject: x509.Name, issuer: x509.Name, *, now: datetime, life: timedelta) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + life)
    )


def _authority_identifier(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
