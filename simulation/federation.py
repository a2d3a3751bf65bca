"""A real center and real edges on one machine: separate processes, set up by the commands a user would type."""

import fcntl
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from center import overview
from center import settings as center_settings
from center.registry import Registry
from center.releases import rollout_view
from center.releases.rollouts import Rollouts
from protocol.errors import BadInputError, UnavailableError
from simulation.processes import Child, free_ports, program, run, wait_until

_ENVIRONMENT = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One edge of the federation.

    Attributes:
        port: of its query service.
        key: its API key.
    """

    name: str
    directory: Path
    port: int
    key: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> httpx.Client:
        """Speaks to this edge as its shop would."""
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=30.0, trust_env=False
        )


class Federation:
    """A center, a broker and sites in one folder; every step is a command that an operator could type."""

    def __init__(self, directory: Path, *, federation: str) -> None:
        self.directory = directory
        self.federation = federation
        self.center = directory / "center"
        self.sites: list[Site] = []
        self.children: dict[str, Child] = {}
        self.start_seconds: dict[str, float] = {}

    @classmethod
    @contextmanager
    def fresh(cls, directory: Path, *, federation: str) -> Iterator["Federation"]:
        """A federation in an empty folder; whatever happens, none of its processes survives.

        Raises:
            BadInputError: another one runs in this folder.
        """
        with _alone(directory):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            made = cls(directory, federation=federation)
            try:
                yield made
            finally:
                made.stop()

    def found(self, *, settings: Mapping[str, Mapping[str, object]], embedded_broker: bool = False) -> None:
        """`hanse-center init`, the broker, and `hanse-center serve`.

        Args:
            embedded_broker: the embedded one even where Mosquitto is installed.
            settings: sections of ``center.toml`` beside the addresses.
        """
        gateway, superlink, broker = free_ports(3)
        ports = ["--gateway-port", str(gateway), "--superlink-port", str(superlink), "--broker-port", str(broker)]
        self.command("hanse-center", "init", self.federation, *ports)
        _add_settings(self.center / "center.toml", settings)
        self.start("broker", "hanse-center", "broker", *(["--embedded"] if embedded_broker else []))
        self.start("center", "hanse-center", "serve")
        self.wait_for_center()

    def wait_for_center(self) -> None:
        """Until the gateway, the SuperLink behind it and the broker answer."""

        def ready() -> bool:
            return bool(self.status()["serving"])

        wait_until(ready, what="the start of the center", seconds=90, children=list(self.children.values()))

    def join(self, name: str, *, min_cohort: int, settings: Mapping[str, Mapping[str, object]] | None = None) -> Site:
        """`hanse-center enroll`, then `hanse-edge join`.

        Args:
            settings: sections of ``edge.toml`` beside those that `join` writes.
        """
        token = json.loads(self.command("hanse-center", "enroll", name, "--json"))["token"]
        (port,) = free_ports(1)
        directory = self.directory / "sites" / name
        said = self.command(
            "hanse-edge", "join", token, "--port", str(port), "--min-cohort", str(min_cohort), "--json", at=directory
        )
        _add_settings(directory / "edge.toml", settings or {})
        site = Site(name=name, directory=directory, port=port, key=json.loads(said)["api_key"])
        self.sites.append(site)
        return site

    def serve(self, site: Site) -> Child:
        """`hanse-edge serve`, until it answers."""
        began = time.monotonic()
        child = self.start(site.name, "hanse-edge", "serve", at=site.directory)
        wait_until(lambda: alive(site), what=f"the start of {site.name}", seconds=60, children=[child])
        self.start_seconds[site.name] = time.monotonic() - began
        return child

    def serve_all(self) -> None:
        """`hanse-edge serve` of every site at once, until all answer; how long one takes is not measured."""
        edges = [self.start(site.name, "hanse-edge", "serve", at=site.directory) for site in self.sites]
        wait_until(
            lambda: all(alive(site) for site in self.sites),
            what=f"the start of {len(edges)} edges",
            seconds=60 + 10 * len(edges),
            children=edges,
        )

    def start(self, name: str, command: str, *words: str, at: Path | None = None) -> Child:
        line = [program(command), *words, "--dir", str(at or self.center)]
        child = Child(name, line, log=self.directory / "logs" / f"{name}.log", environment=_ENVIRONMENT)
        self.children[name] = child
        return child

    def command(self, command: str, *words: str, at: Path | None = None) -> str:
        """Run one of our commands to its end, in the center's folder unless told otherwise."""
        return run([program(command), *words, "--dir", str(at or self.center)], environment=_ENVIRONMENT)

    def status(self) -> dict[str, Any]:
        """What `hanse-center status --json` prints, without starting a process each time."""
        return overview.look(self.center, center_settings.load(self.center))

    def rollout(self, version: int) -> dict[str, Any]:
        """One release of what `hanse-center rollout status --all --json` prints, likewise."""
        with closing(Registry(self.center / "registry.db")) as registry:
            return rollout_view.describe(Rollouts(registry).get(version))

    def stop(self) -> None:
        """End everything: edges first, then the center, the broker last."""
        order = [*(site.name for site in self.sites), "center", "broker"]
        children = [self.children.pop(name) for name in order if name in self.children]
        for child in [*children, *self.children.values()]:
            child.stop()
        self.children.clear()


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One run a folder; the lock stands beside the folder, which is emptied.

    Raises:
        BadInputError: another one runs.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_name(f".{directory.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadInputError(f"a federation runs in {directory} already", advice="end it, or use --dir") from error
        yield


def _add_settings(path: Path, settings: Mapping[str, Mapping[str, object]]) -> None:
    with path.open("a", encoding="utf-8") as file:
        for section, values in settings.items():
            lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
            file.write("\n".join([f"\n[{section}]", *lines, ""]))


def alive(site: Site) -> bool:
    """Does its query service answer?"""
    try:
        with site.client() as client:
            return client.get("/healthz").is_success
    except httpx.TransportError:
        return False


def release_of(site: Site) -> int:
    """The version of the release that a site answers from, 0 before the first.

    Raises:
        UnavailableError: it does not answer.
    """
    try:
        with site.client() as client:
            release = client.get("/readyz").json()["release"]
            return int(release["version"]) if release else 0
    except httpx.TransportError as error:
        raise UnavailableError(f"{site.name} does not answer: {error}") from error


def served_by(sites: Sequence[Site], expected: Mapping[str, int], *, seconds: float) -> None:
    """Until every site answers from the release that is expected there."""
    wait_until(
        lambda: all(release_of(site) == expected[site.name] for site in sites),
        what=f"releases {sorted(set(expected.values()))} at {len(sites)} sites",
        seconds=seconds,
        children=[],
    )


def wait_for_fusion(sites: Sequence[Site], sha256: str, *, seconds: float, children: Sequence[Child]) -> None:
    """Until every site has fitted its fusion weights for this bundle."""
    wait_until(
        lambda: all((site.directory / "fusion" / f"{sha256}.json").exists() for site in sites),
        what=f"fitting at {len(sites)} sites",
        seconds=seconds,
        children=children,
    )
