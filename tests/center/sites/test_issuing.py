"""Who gets which certificate, how often, and what a copied or forged request is worth."""

import threading
import time
from contextlib import closing
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from center.sites import authority
from center.sites.certificates import Certificates
from center.sites.issuing import Issuer, Renewals
from edge.keys import Keys
from protocol.errors import BadInputError, BadSignatureError, MalformedMessageError, NotAdmittedError
from protocol.identity import EdgeId, FederationId, Roster
from protocol.renewal import RenewalRequest

HANSE, RHINE = FederationId("hanse"), FederationId("rhein")
VISBY, RIGA = EdgeId("visby"), EdgeId("riga")
NOW = datetime(2026, 1, 2, tzinfo=UTC)
DAY_MS = 24 * 60 * 60 * 1000


class Office:
    """A center's issuing side, with a clock that is set by hand."""

    def __init__(self, folder):
        self.now_ms = int(NOW.timestamp() * 1000)
        self.certificates = Certificates(folder / "registry.db")
        key = authority.new_key()
        self.issuer = Issuer(
            certificates=self.certificates,
            authority=authority.create(HANSE, key=key, now=NOW),
            authority_key=key,
            now_ms=lambda: self.now_ms,
        )
        self.keys = {name: Keys.generate() for name in (VISBY, RIGA)}
        self.roster = Roster.of(HANSE, 1, [keys.member(name) for name, keys in self.keys.items()])
        self.renewals = Renewals(issuer=self.issuer, roster=lambda: self.roster)

    def ask(self, edge=VISBY, *, key=None, federation=HANSE, signer=None):
        request = RenewalRequest(
            federation=federation,
            edge=edge,
            certificate_request=authority.request_for(edge, key or authority.new_key()),
        )
        return request.sign(signer or self.keys[edge].identity)


@pytest.fixture
def office(tmp_path):
    office = Office(tmp_path)
    yield office
    office.certificates.close()


def test_an_admitted_edge_gets_a_certificate_in_its_own_name(office) -> None:
    key = authority.new_key()
    given = x509.load_pem_x509_certificate(office.renewals.renew(office.ask(key=key)))
    given.verify_directly_issued_by(office.issuer.authority)
    assert given.public_key() == key.public_key()
    assert given.subject.rfc4514_string() == "CN=visby"
    assert office.certificates.holders() == {VISBY}


def test_a_copied_request_gets_what_it_got_before_and_nothing_new(office) -> None:
    request = office.ask()
    first = office.renewals.renew(request)
    office.now_ms += 30 * DAY_MS
    assert office.renewals.renew(request) == first


def test_a_copied_request_is_worth_nothing_after_a_removal(office) -> None:
    request = office.ask()
    office.renewals.renew(request)
    office.certificates.revoke(VISBY, now_ms=office.now_ms)
    with pytest.raises(BadInputError, match="has had a certificate before"):
        office.renewals.renew(request)
    office.roster = Roster.of(HANSE, 2, [office.keys[RIGA].member(RIGA)])
    for body in (request, office.ask()):
        with pytest.raises(NotAdmittedError, match="visby is not in roster 2"):
            office.renewals.renew(body)
    assert office.certificates.holders() == frozenset()


def test_nobody_is_admitted_before_the_first_roster(office) -> None:
    office.roster = None
    with pytest.raises(NotAdmittedError):
        office.renewals.renew(office.ask())


def test_a_request_signed_by_another_hand_is_refused(office) -> None:
    for signer in (office.keys[RIGA].identity, Ed25519PrivateKey.generate()):
        with pytest.raises(BadSignatureError):
            office.renewals.renew(office.ask(signer=signer))
    assert office.certificates.holders() == frozenset()


def test_a_request_to_another_federation_is_none_to_this_one(office) -> None:
    with pytest.raises(MalformedMessageError, match="rhein"):
        office.renewals.renew(office.ask(federation=RHINE))


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"content":1,"signature":"00"}', b'{"content":{"edge":"visby"}}']
)
def test_what_is_no_request_is_said(office, body) -> None:
    with pytest.raises(MalformedMessageError):
        office.renewals.renew(body)


def test_a_removal_in_the_middle_of_an_answer_wins(office) -> None:
    without = Roster.of(HANSE, 2, [office.keys[RIGA].member(RIGA)])
    rosters = iter([office.roster, without])
    renewals = Renewals(issuer=office.issuer, roster=lambda: next(rosters))
    with pytest.raises(NotAdmittedError):
        renewals.renew(office.ask())
    assert office.certificates.holders() == frozenset()
    assert len(office.certificates.revoked(now_ms=office.now_ms)) == 1


def test_an_edge_cannot_fill_the_books(office) -> None:
    for _ in range(8):
        office.renewals.renew(office.ask())
    with pytest.raises(BadInputError, match="has had 8 certificates today"):
        office.renewals.renew(office.ask())
    office.renewals.renew(office.ask(RIGA))
    office.now_ms += DAY_MS + 1
    office.renewals.renew(office.ask())


def test_what_has_ended_by_itself_is_forgotten(office) -> None:
    office.renewals.renew(office.ask())
    office.certificates.revoke(VISBY, now_ms=office.now_ms)
    assert len(office.certificates.revoked(now_ms=office.now_ms)) == 1
    office.now_ms += 400 * DAY_MS
    assert office.certificates.revoked(now_ms=office.now_ms) == ()


def test_two_who_ask_at_once_get_one_certificate(office, tmp_path) -> None:
    request = authority.request_for(VISBY, authority.new_key())
    answers = []

    def ask():
        with closing(Certificates(tmp_path / "registry.db")) as certificates:
            issuer = Issuer(
                certificates=certificates,
                authority=office.issuer.authority,
                authority_key=office.issuer.authority_key,
                now_ms=lambda: time.time_ns() // 1_000_000,
            )
            answers.append(issuer.issue(VISBY, request=request))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 6
    assert len(set(answers)) == 1
