"""A real SuperLink behind the real gateway, and a node process for each site, some of which die at work."""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from center.rounds.exchange import Exchange
from center.rounds.flower_app import FlowerCenter
from center.rounds.superlink import HOST, SuperLink
from center.rounds.transport import GridTransport
from center.settings import RoundSettings
from center.sites import authority
from center.sites.gateway import Gateway
from edge.keys import Keys
from protocol.errors import UnavailableError
from protocol.identity import EdgeId, Roster
from protocol.transport import Request
from simulation.bench import node
from simulation.processes import Child

_ENVIRONMENT = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """Everything that a center needs to run rounds, and the edges that it runs them with.

    Attributes:
        dropped: so many of the edges, the last ones, die by SIGKILL when they are to train.
        nodes: those that have been started.
    """

    directory: Path
    gateway: str
    center_key: Ed25519PrivateKey
    roster: Roster
    transport: GridTransport
    dropped: int
    training_seconds: float
    nodes: dict[EdgeId, Child] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def hired(cls, sites: int, *, dropped: int, training_seconds: float, directory: Path) -> Iterator[Self]:
        """Set everything up in an empty folder; whatever happens, none of its processes survives."""
        with ExitStack() as ending:
            papers = _Papers.make(directory / "center")
            superlink = papers.superlink()
            ending.callback(superlink.stop)
            superlink.start()
            gateway = papers.gateway(superlink)
            ending.callback(gateway.stop)
            gateway.start()
            flower = FlowerCenter(address=superlink.address, ca_certificate=papers.ca, secret=superlink.secret())
            ending.callback(flower.close)
            center_key = Ed25519PrivateKey.generate()
            roster = _admit(sites, flower, papers.ca, center_key, directory / "sites")
            crew = cls(
                directory=directory,
                gateway=gateway.url,
                center_key=center_key,
                roster=roster,
                transport=flower.transport({member.edge: member.node for member in roster.members}),
                dropped=dropped,
                training_seconds=training_seconds,
            )
            ending.callback(crew.dismiss)
            crew.man()
            yield crew

    @property
    def edges(self) -> tuple[EdgeId, ...]:
        return tuple(member.edge for member in self.roster.members)

    @property
    def survivors(self) -> tuple[EdgeId, ...]:
        """Who answers."""
        return self.edges[: len(self.edges) - self.dropped]

    def man(self) -> None:
        """Start the nodes that are not there, and hear from every one.

        Raises:
            UnavailableError: a node does not come up.
        """
        for edge in self.edges:
            if edge not in self.nodes or not self.nodes[edge].alive():
                self.nodes[edge] = self._start(edge)
        request = Request(action=node.ROLL_CALL, document=os.urandom(8))
        here = self.exchange().ask(dict.fromkeys(self.edges, request))
        if len(here) < len(self.edges):
            raise UnavailableError(f"only {sorted(here)} have come up", advice=f"see {self.directory / 'logs'}")

    def _start(self, edge: EdgeId) -> Child:
        duty = node.Duty(
            directory=str(self.directory / "sites" / edge),
            gateway=self.gateway,
            training_seconds=self.training_seconds,
            dies=edge not in self.survivors,
        )
        command = [sys.executable, "-m", "simulation.bench.node", json.dumps(asdict(duty))]
        return Child(edge, command, log=self.directory / "logs" / f"{edge}.log", environment=_ENVIRONMENT)

    def exchange(self) -> Exchange:
        return Exchange(
            transport=self.transport, seconds=RoundSettings().step_seconds, now_ms=now_ms, stopped=lambda: False
        )

    def dismiss(self) -> None:
        for child in self.nodes.values():
            child.kill()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Papers:
    """A certificate authority, and a certificate for this machine."""

    folder: Path
    ca: Path
    certificate: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> Self:
        folder.mkdir(parents=True)
        now, root, server = datetime.now(UTC), authority.new_key(), authority.new_key()
        ca = authority.create(node.FEDERATION, key=root, now=now)
        certificate = authority.server_certificate(
            (HOST,), public_key=server.public_key(), authority=ca, authority_key=root, now=now
        )
        made = cls(folder=folder, ca=folder / "ca.crt", certificate=folder / "server.crt", key=folder / "server.key")
        made.ca.write_bytes(ca.public_bytes(Encoding.PEM))
        made.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
        made.key.write_bytes(authority.key_pem(server))
        return made

    def superlink(self) -> SuperLink:
        return SuperLink(folder=self.folder, certificate=self.certificate, key=self.key, ca_certificate=self.ca)

    def gateway(self, superlink: SuperLink) -> Gateway:
        return Gateway(
            host=HOST,
            port=0,
            certificate=self.certificate,
            key=self.key,
            superlink_url=superlink.url,
            ca_certificate=self.ca,
        )


def _admit(count: int, flower: FlowerCenter, ca: Path, center_key: Ed25519PrivateKey, sites: Path) -> Roster:
    """Keys for so many sites, each in a folder of its own; all are listed in one signed roster."""
    members = []
    for number in range(1, count + 1):
        edge, keys = EdgeId(f"site-{number}"), Keys.generate()
        keys.save(sites / edge / node.KEYS)
        members.append(keys.member(edge))
        flower.register(members[-1].node)
    roster, roster_key = Roster.of(node.FEDERATION, 1, members), Ed25519PrivateKey.generate()
    for edge in (member.edge for member in members):
        folder = sites / edge
        shutil.copy(ca, folder / node.AUTHORITY)
        (folder / node.ROSTER).write_bytes(roster.sign(roster_key))
        (folder / node.ROSTER_KEY).write_text(roster_key.public_key().public_bytes_raw().hex(), "ascii")
        (folder / node.CENTER).write_text(center_key.public_key().public_bytes_raw().hex(), "ascii")
    return roster
