"""The edge's next client certificate, through a real gateway, and what is on disk whenever the edge dies."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from center.sites import authority
from center.sites.certificates import Certificates
from center.sites.gateway import Gateway
from center.sites.issuing import Issuer, Renewals
from edge import cli
from edge.keys import Keys
from edge.releases import connection, renewal
from edge.settings import EdgeSettings
from protocol.errors import BadInputError, BadSignatureError, NotAdmittedError, UnavailableError
from protocol.identity import EdgeId, FederationId, Roster
from protocol.renewal import RENEWAL_PATH, RenewalRequest, is_due

VISBY = EdgeId("visby")
HANSE = FederationId("hanse")


class House:
    """One edge's folder, and the center's gateway that it knows."""

    def __init__(self, folder):
        self.folder = folder / "edge"
        self.now = datetime.now(UTC)
        self.ca_key = authority.new_key()
        self.ca = authority.create(HANSE, key=self.ca_key, now=self.now)
        self.keys = Keys.generate()
        self.keys.save(self.folder / "keys")
        (self.folder / "trust").mkdir()
        (self.folder / "trust" / "ca.crt").write_bytes(self.ca.public_bytes(Encoding.PEM))
        self.certificates = Certificates(folder / "registry.db")
        self.issuer = Issuer(
            certificates=self.certificates,
            authority=self.ca,
            authority_key=self.ca_key,
            now_ms=lambda: int(self.now.timestamp() * 1000),
        )
        self.roster = Roster.of(HANSE, 1, [self.keys.member(VISBY)])
        self.server(folder)
        self.gateway = Gateway(
            host="127.0.0.1",
            port=0,
            certificate=folder / "tls.crt",
            key=folder / "tls.key",
            superlink_url="https://127.0.0.1:1",
            ca_certificate=folder / "trust.crt",
            renew=Renewals(issuer=self.issuer, roster=lambda: self.roster).renew,
        )
        self.gateway.start()
        self.settings = EdgeSettings.model_validate(
            {
                "site": {"name": "visby", "federation": "hanse"},
                "center": {"gateway": self.gateway.url, "broker_host": "127.0.0.1", "broker_port": 1},
            }
        )
        key = renewal.new_key()
        pem = self.issuer.issue(VISBY, request=renewal.certificate_request(VISBY, key))
        renewal.keep(self.folder, pem, key=key, authority=self.ca)

    def server(self, folder):
        if not (folder / "tls.key").exists():
            self.server_key = authority.new_key()
            (folder / "tls.key").write_bytes(authority.key_pem(self.server_key))
            (folder / "trust.crt").write_bytes(self.ca.public_bytes(Encoding.PEM))
        certificate = authority.server_certificate(
            ("127.0.0.1",),
            public_key=self.server_key.public_key(),
            authority=self.ca,
            authority_key=self.ca_key,
            now=self.now,
        )
        (folder / "tls.crt").write_bytes(certificate.public_bytes(Encoding.PEM))

    @property
    def pair(self):
        return self.folder / renewal.PAIR

    def renew(self):
        return renewal.renew(self.folder, self.settings)

    def close(self):
        self.gateway.stop()
        self.certificates.close()


@pytest.fixture
def house(tmp_path):
    house = House(tmp_path)
    yield house
    house.close()


def fits(path):
    """Do key and certificate in this file belong together?"""
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path)
    return True


def test_a_new_key_and_certificate_take_the_place_of_the_old(house) -> None:
    before = renewal.read(house.folder)
    after = house.renew()
    assert after.serial_number != before.serial_number
    assert after.public_key() != before.public_key()
    assert after == renewal.read(house.folder)
    assert fits(house.pair)
    assert house.pair.stat().st_mode & 0o777 == 0o600
    assert list(house.pair.parent.glob(".*")) == []


def test_an_edge_that_was_away_until_all_had_ended_comes_back(house) -> None:
    house.now += timedelta(days=390)  # the center's certificate still counts, the edge's is about to end
    house.pair.unlink()
    assert fits(house.pair) if house.renew() else False


def test_a_third_of_its_life_before_the_end_it_is_time(house) -> None:
    certificate = renewal.read(house.folder)
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert not is_due(certificate, now=certificate.not_valid_after_utc - life / 3 - timedelta(minutes=1))
    assert is_due(certificate, now=certificate.not_valid_after_utc - life / 3 + timedelta(minutes=1))
    assert is_due(certificate, now=certificate.not_valid_after_utc + life)


def test_the_agent_renews_in_time_and_connects_anew(house) -> None:
    told = []
    looking = renewal.Renewal(house.folder, house.settings, renewed=lambda: told.append(renewal.read(house.folder)))
    before = renewal.read(house.folder)
    assert not looking.look(house.now)
    assert renewal.read(house.folder) == before
    assert looking.look(house.now + timedelta(days=300))
    assert told == [renewal.read(house.folder)]
    assert told != [before]


def test_trouble_leaves_the_old_pair_and_is_tried_again(house, monkeypatch) -> None:
    before = house.pair.read_bytes()
    monkeypatch.setattr(renewal, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(renewal, "is_due", lambda *_details, **_more: True)
    renewed = threading.Event()
    house.roster = None
    looking = renewal.Renewal(house.folder, house.settings, renewed=renewed.set)
    looking.start()
    try:
        assert not renewed.wait(0.5)
        assert house.pair.read_bytes() == before
        house.roster = Roster.of(HANSE, 2, [house.keys.member(VISBY)])
        assert renewed.wait(10)
    finally:
        looking.stop()
    assert house.pair.read_bytes() != before


def test_a_removed_site_gets_none(house) -> None:
    other = Keys.generate()
    house.roster = Roster.of(HANSE, 2, [other.member(EdgeId("riga"))])
    with pytest.raises(NotAdmittedError, match="gives this site no certificate"):
        house.renew()
    assert fits(house.pair)


def test_a_center_that_is_away_is_said(house) -> None:
    house.gateway.stop()
    with pytest.raises(UnavailableError, match="does not answer"):
        house.renew()


def test_another_center_is_not_asked(house) -> None:
    other = authority.create(HANSE, key=authority.new_key(), now=house.now)
    (house.folder / "trust" / "ca.crt").write_bytes(other.public_bytes(Encoding.PEM))
    with pytest.raises(BadSignatureError, match="is not of this federation"):
        house.renew()


@pytest.mark.parametrize("fault", ["another authority", "another key", "noise"])
def test_an_answer_that_is_no_certificate_of_ours_is_not_kept(house, fault) -> None:
    before = house.pair.read_bytes()
    key, ca_key = renewal.new_key(), authority.new_key()
    request = renewal.certificate_request(VISBY, key)
    if fault == "another authority":
        ca = authority.create(HANSE, key=ca_key, now=house.now)
        given = authority.client_certificate(VISBY, request=request, authority=ca, authority_key=ca_key, now=house.now)
        pem = given.public_bytes(Encoding.PEM).decode()
    else:
        pem = house.issuer.issue(VISBY, request=request) if fault == "another key" else "noise"
        key = renewal.new_key()
    with pytest.raises(BadSignatureError):
        renewal.keep(house.folder, pem, key=key, authority=house.ca)
    assert house.pair.read_bytes() == before


def test_a_missing_pair_is_mended_by_hand(house, capsys) -> None:
    house.pair.unlink()
    with pytest.raises(BadInputError, match=r"tls\.pem cannot be read"):
        renewal.read(house.folder)
    (house.folder / "edge.toml").write_text(
        f'[site]\nname = "visby"\nfederation = "hanse"\n[center]\ngateway = "{house.gateway.url}"\n'
        'broker_host = "127.0.0.1"\nbroker_port = 1\n'
    )
    assert cli.main(["renew", "--dir", str(house.folder)]) == 0
    assert "lasts until" in capsys.readouterr().out
    assert fits(house.pair)


KILLED = """
import sys
from pathlib import Path
from cryptography import x509
from center.sites import authority
from edge.releases import renewal
folder = Path(sys.argv[1])
ca = x509.load_pem_x509_certificate((folder / "trust" / "ca.crt").read_bytes())
pairs = [(folder / f"{n}.pem").read_text() for n in (0, 1)]
from cryptography.hazmat.primitives.serialization import load_pem_private_key
keys = [load_pem_private_key((folder / f"{n}.key").read_bytes(), None) for n in (0, 1)]
print("ready", flush=True)
while True:
    for pem, key in zip(pairs, keys):
        renewal.keep(folder, pem, key=key, authority=ca)
"""


def test_whenever_it_is_killed_key_and_certificate_match(house) -> None:
    serials = set()
    for number in (0, 1):
        key = renewal.new_key()
        pem = house.issuer.issue(VISBY, request=renewal.certificate_request(VISBY, key))
        (house.folder / f"{number}.pem").write_text(pem)
        (house.folder / f"{number}.key").write_bytes(authority.key_pem(key))
        serials.add(x509.load_pem_x509_certificate(pem.encode()).serial_number)
    seen = set()
    for attempt in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(house.folder)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.002 * attempt + 0.02)  # somewhere else each time
            os.kill(process.pid, signal.SIGKILL)
        assert fits(house.pair)
        seen.add(renewal.read(house.folder).serial_number)
    assert seen <= serials
    assert len(seen) == 2


def test_a_stranger_finds_no_such_door(house) -> None:
    with httpx.Client(verify=ssl.create_default_context(cafile=house.folder / "trust" / "ca.crt")) as client:
        nothing = client.post(f"{house.gateway.url}/v1/nothing")
        forged = RenewalRequest(
            federation=HANSE, edge=VISBY, certificate_request=renewal.certificate_request(VISBY, renewal.new_key())
        ).sign(Ed25519PrivateKey.generate())
        answer = client.post(f"{house.gateway.url}{RENEWAL_PATH}", content=forged)
        assert (answer.status_code, answer.content) == (nothing.status_code, nothing.content)
        assert client.get(f"{house.gateway.url}{RENEWAL_PATH}").status_code == 404
        large = client.post(f"{house.gateway.url}{RENEWAL_PATH}", content=bytes(1 << 20))
        assert large.status_code == 404


def test_a_gateway_shows_a_new_certificate_without_a_restart(house, tmp_path) -> None:
    def shown():
        context = ssl.create_default_context(cafile=tmp_path / "trust.crt")
        with (
            socket.create_connection(("127.0.0.1", house.gateway.port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as line,
        ):
            return line.getpeercert()["serialNumber"]

    before = shown()
    (tmp_path / "tls.crt").write_text("half a file")
    with pytest.raises(BadInputError, match="cannot be used"):
        house.gateway.take_certificate()
    assert shown() == before
    house.server(tmp_path)
    assert shown() == before
    house.gateway.take_certificate()
    assert shown() != before
    house.renew()


def test_a_connection_takes_the_new_pair_up(road, eventually) -> None:
    """The broker sees the new certificate; what was listened to is heard on."""
    papers = road.papers("luebeck")
    owner = road.as_owner_of_the_broker()
    heard = []
    line = connection.Connection(connection.BrokerAccess(**papers), client_id="till")
    line.listen(road.topics.round, heard.append)
    line.start()
    try:
        line.wait_until_up(seconds=10)
        before = road.serial("luebeck")
        papers["certificate"].unlink()
        papers["key"].unlink()
        road.papers("luebeck")
        assert road.serial("luebeck") != before
        line.reconnect()
        line.wait_until_up(seconds=10)
        road.revoke([before])  # whoever still showed the old one would be out now, and stay out
        road.broker.reload()
        line.reconnect()
        line.wait_until_up(seconds=10)
        owner.deliver([(road.topics.round, b"heard on")], window=1, seconds=5)
        eventually(lambda: b"heard on" in heard)
    finally:
        line.stop()
    line.reconnect()
    assert not line.is_up
