"""Who may speak TLS with whom, and in which name."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from center.sites import authority
from protocol.errors import BadInputError
from protocol.identity import EdgeId, FederationId

NOW = datetime(2026, 1, 2, tzinfo=UTC)
KEY = authority.new_key()
CA = authority.create(FederationId("hanse"), key=KEY, now=NOW)


def _client(name, request):
    return authority.client_certificate(EdgeId(name), request=request, authority=CA, authority_key=KEY, now=NOW)


def _usage(certificate):
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_the_name_is_the_centers_to_give_whatever_the_request_says() -> None:
    given = _client("visby", authority.request_for(EdgeId("center"), authority.new_key()))
    assert [name.value for name in given.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["visby"]
    assert _usage(given) == [ExtendedKeyUsageOID.CLIENT_AUTH]  # it cannot play the broker
    assert not given.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_client_certificate_is_this_federations_and_no_others() -> None:
    given = _client("visby", authority.request_for(EdgeId("visby"), authority.new_key()))
    given.verify_directly_issued_by(CA)
    other = authority.create(FederationId("hanse"), key=authority.new_key(), now=NOW)
    with pytest.raises(InvalidSignature):
        given.verify_directly_issued_by(other)


def _of_another_kind():
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "visby")])
    request = (
        x509.CertificateSigningRequestBuilder().subject_name(name).sign(ed25519.Ed25519PrivateKey.generate(), None)
    )
    return request.public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize("request_text", ["", "noise", "Ä", _of_another_kind()])
def test_what_is_no_request_gets_no_certificate(request_text) -> None:
    with pytest.raises(BadInputError, match="certificate request of visby"):
        _client("visby", request_text)


def test_a_server_certificate_holds_every_host_and_is_no_client() -> None:
    given = authority.server_certificate(
        ("center.example", "127.0.0.1"), public_key=KEY.public_key(), authority=CA, authority_key=KEY, now=NOW
    )
    names = given.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["center.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert _usage(given) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert isinstance(given.signature_hash_algorithm, hashes.SHA256)


def test_a_clock_that_is_a_little_slow_still_believes_a_new_certificate() -> None:
    assert CA.not_valid_before_utc <= NOW - timedelta(minutes=5)


def test_a_list_of_revoked_certificates_is_the_authoritys_and_lasts() -> None:
    given = authority.revocation_list({7: NOW, 5: NOW}, authority=CA, authority_key=KEY, now=NOW)
    assert given.is_signature_valid(KEY.public_key())
    assert given.issuer == CA.subject
    assert {entry.serial_number for entry in given} == {5, 7}
    assert given.last_update_utc < NOW  # a broker whose clock is a little slow believes it
    assert given.next_update_utc - NOW > timedelta(days=365)


def test_nobody_revoked_is_a_list_too() -> None:
    assert list(authority.revocation_list({}, authority=CA, authority_key=KEY, now=NOW)) == []


def test_the_longest_name_fits() -> None:
    authority.create(FederationId("h" * 63), key=KEY, now=NOW)
