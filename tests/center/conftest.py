"""A real SuperLink for the tests of a module, with TLS of its own, and real nodes for each test."""

import datetime as dt
import ipaddress
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from center.flower_app import FlowerCenter
from center.gateway import Gateway
from center.superlink import SuperLink
from center.transport import GridTransport
from edge.flower_node import Answer, FlowerNode, build_client_app
from protocol.identity import EdgeId
from protocol.transport import Reply, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Papers:
    """Files: an authority, and a certificate that it gave to 127.0.0.1."""

    ca: Path
    certificate: Path
    key: Path


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def make_papers(folder: Path) -> Papers:
    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)

    def certificate(subject: str, key: ec.EllipticCurvePrivateKey, *, is_ca: bool) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name("test authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
                ),
                critical=False,
            )
            .sign(authority, hashes.SHA256())
        )

    folder.mkdir(parents=True, exist_ok=True)
    papers = Papers(ca=folder / "ca.crt", certificate=folder / "server.crt", key=folder / "server.key")
    papers.ca.write_bytes(certificate("test authority", authority, is_ca=True).public_bytes(Encoding.PEM))
    papers.certificate.write_bytes(certificate("localhost", server, is_ca=False).public_bytes(Encoding.PEM))
    papers.key.write_bytes(server.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return papers


@pytest.fixture(scope="module")
def papers(tmp_path_factory) -> Papers:
    return make_papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture(scope="module")
def superlink(tmp_path_factory, papers) -> Iterator[SuperLink]:
    link = SuperLink(
        folder=tmp_path_factory.mktemp("superlink"),
        certificate=papers.certificate,
        key=papers.key,
        ca_certificate=papers.ca,
    )
    link.start()
    yield link
    link.stop()


@pytest.fixture(scope="module")
def center(superlink) -> Iterator[FlowerCenter]:
    flower = FlowerCenter(address=superlink.address, ca_certificate=superlink.ca_certificate, secret=superlink.secret())
    yield flower
    flower.close()


def public(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def echo(request: Request) -> Reply:
    return Reply(body=request.document + request.weights)


class Crew:
    """Edges in threads, admitted and online; all are stopped in the end."""

    def __init__(self, *, center: FlowerCenter, url: str, ca: Path, folder: Path) -> None:
        self.center = center
        self.url = url
        self.ca = ca
        self.folder = folder
        self.keys: dict[EdgeId, ec.EllipticCurvePrivateKey] = {}
        self._threads: dict[EdgeId, tuple[threading.Event, threading.Thread]] = {}

    @property
    def public_keys(self) -> dict[EdgeId, bytes]:
        return {edge: public(key) for edge, key in self.keys.items()}

    def admit(self, name: str) -> EdgeId:
        edge = EdgeId(name)
        self.keys[edge] = ec.generate_private_key(ec.SECP384R1())
        self.center.register(public(self.keys[edge]))
        return edge

    def hire(self, name: str, answer: Answer = echo, *, url: str | None = None, **options) -> EdgeId:
        edge = self.admit(name) if EdgeId(name) not in self.keys else EdgeId(name)
        node = FlowerNode(
            gateway_url=url or self.url,
            ca_certificate=self.ca,
            node_key=self.keys[edge],
            app=build_client_app(answer),
            memory=self.folder / f"{edge}.node",
            poll=0.05,
            **options,
        )
        stop = threading.Event()
        thread = threading.Thread(target=node.run, args=(stop,), name=edge)
        thread.start()
        self._threads[edge] = (stop, thread)
        return edge

    def dismiss(self, *edges: EdgeId) -> None:
        for edge in edges or list(self._threads):
            stop, thread = self._threads.pop(edge)
            stop.set()
            thread.join(timeout=30)
            assert not thread.is_alive()

    def transport(self, **options) -> GridTransport:
        return self.center.transport(self.public_keys, poll=0.05, **options)


def ask(transport: GridTransport, *edges: EdgeId, timeout: float = 30.0, weights: bytes = b"") -> dict[EdgeId, Reply]:
    """One round: the same request to these edges, and their answers."""
    request = Request(action="test", document=os.urandom(8), weights=weights)
    transport.send(dict.fromkeys(edges, request))
    return collect(transport, *edges, timeout=timeout)


def collect(transport: GridTransport, *edges: EdgeId, timeout: float = 30.0) -> dict[EdgeId, Reply]:
    replies: dict[EdgeId, Reply] = {}
    deadline = time.monotonic() + timeout
    while set(edges) - set(replies) and time.monotonic() < deadline:
        replies |= dict(transport.receive(timeout=0.5))
    return replies


@pytest.fixture
def crew(superlink, center, tmp_path) -> Iterator[Crew]:
    crew = Crew(center=center, url=superlink.url, ca=superlink.ca_certificate, folder=tmp_path)
    yield crew
    crew.dismiss()


@pytest.fixture
def rounds():
    """`ask` and `collect` for tests, which cannot import a conftest."""
    return SimpleNamespace(ask=ask, collect=collect)


@pytest.fixture
def gateway(superlink, papers) -> Iterator[Gateway]:
    door = Gateway(
        host="127.0.0.1",
        port=0,
        certificate=papers.certificate,
        key=papers.key,
        superlink_url=superlink.url,
        ca_certificate=papers.ca,
    )
    door.start()
    yield door
    door.stop()
