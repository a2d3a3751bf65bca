"""One center and its sites, joined by the commands that operators type, for benchmarks of the road between them.

Each turn of a benchmark begins as everything was right after joining: another broker process, nothing retained but what
stands there always, and empty disks at the edges. So turns do not help or hinder each other.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from center import settings as center_settings
from center.keys import CenterKeys
from center.mqtt import road
from center.mqtt.broker import Broker
from center.mqtt.connection import BrokerAccess
from center.mqtt.publishing import Publisher
from center.releases import staging
from center.settings import CenterSettings
from protocol.bundle import Manifest
from protocol.errors import UnavailableError
from protocol.identity import FederationId, federation_id
from protocol.release import WHOLE_QUEUE, Kind, Offer, Place
from protocol.topics import Topics
from simulation.federation import Federation, Site

_FEDERATION = "bench"
_FEWEST_FOR_DEFAULT_POLICY = 5
_NEVER_BAKED = 86_400.0


class Follower:
    """One site's process; see `simulation.bench.follower`."""

    def __init__(self, site: Site, *, log: Path) -> None:
        self.site = site
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "simulation.bench.follower"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C reaches the harness alone
            )

    def order(self, be: str, **details: Any) -> None:
        """Tell it what to be next."""
        line = json.dumps({"be": be, "site": str(self.site.directory), **details})
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The next thing it says; it gives up by itself, so this ends.

        Raises:
            UnavailableError: it could not do what it was told.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"failed": "it ended"}
        if "failed" in answer:
            raise UnavailableError(f"{self.site.name}: {answer['failed']}", advice=f"see {self._log}")
        return answer

    def dismiss(self) -> None:
        """End it."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The road for one turn: a broker, and a center's folder.

    Attributes:
        folder: empty, for this turn's files.
    """

    broker: Broker
    directory: Path
    settings: CenterSettings
    folder: Path

    @property
    def topics(self) -> Topics:
        return Topics(federation_id(self.settings.federation))

    @property
    def access(self) -> BrokerAccess:
        """The center's own way to the broker."""
        return road.broker_access(self.directory, self.settings)

    @contextmanager
    def center(self) -> Iterator[Publisher]:
        """A center that is up and connected, with nothing left to do."""
        with road.connected(self.directory, self.settings, CenterKeys.load(self.directory)) as voice:
            voice.tend()
            yield voice

    def publish(self, voice: Publisher, release: Path) -> Manifest:
        """Publish the blocks of a release, sign it for everybody at once, and publish that."""
        with road.signing_files(voice, release, directory=self.directory, settings=self.settings) as (
            repository,
            manifest,
        ):
            version = repository.next_version(Kind.BUNDLE)
            offer = Offer(
                place=Place.ALL,
                version=version,
                sha256=manifest.bundle_digest,
                bytes=manifest.total_bytes,
                evaluation={},
            )
            repository.add(offer, manifest.to_bytes())
            staging.set_pace(repository, version, WHOLE_QUEUE)
            voice.publish_metadata(repository.publish_version(now=datetime.now(UTC)))
        return manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The sites of one federation.

    Attributes:
        followers: one process a site, for every role in turn, so that both sides of a comparison have the same ones.
    """

    federation: Federation
    settings: CenterSettings
    followers: Sequence[Follower]

    @classmethod
    @contextmanager
    def of(cls, federation: Federation) -> Iterator[Self]:
        """The sites of a federation, which is stopped for this, and left stopped and as it was."""
        federation.stop()
        shutil.copytree(federation.center, _baseline(federation))
        followers: list[Follower] = []
        with ExitStack() as ending:
            for site in federation.sites:
                followers.append(Follower(site, log=federation.directory / "logs" / f"{site.name}-follower.log"))
                ending.callback(followers[-1].dismiss)
            yield cls(
                federation=federation, settings=center_settings.load(federation.center), followers=tuple(followers)
            )
            _restore(federation)

    @property
    def name(self) -> FederationId:
        return federation_id(self.settings.federation)

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """Everything as it was after joining, with a broker of its own."""
        center, folder = self.federation.center, self.federation.directory / "turn"
        _restore(self.federation)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        broker = Broker.start(road.broker_plan(center, self.settings), kind="mosquitto")
        try:
            turn = Turn(broker=broker, directory=center, settings=self.settings, folder=folder)
            with turn.center():
                pass  # it restocks the new broker
            yield turn
        finally:
            broker.stop()


@contextmanager
def joined(sites: int, *, directory: Path) -> Iterator[Federation]:
    """A federation in an empty folder that so many sites have joined; no process survives.

    Raises:
        FederationError: a step failed.
    """
    cohort = min(sites, _FEWEST_FOR_DEFAULT_POLICY)
    with Federation.fresh(directory, federation=_FEDERATION) as federation:
        # Everybody is let in at once, and nobody's health is asked for: that is not what is timed.
        rollout = {"first_share": 1.0, "bake_seconds": _NEVER_BAKED}
        federation.found(settings={"rounds": {"min_cohort": cohort}, "rollout": rollout})
        for number in range(1, sites + 1):
            federation.join(f"site-{number:02d}", min_cohort=cohort)
        federation.command("hanse-center", "admit")
        federation.command("hanse-center", "rings", "--canary", "", "--early", "")
        yield federation


def _restore(federation: Federation) -> None:
    shutil.rmtree(federation.center)
    shutil.copytree(_baseline(federation), federation.center)


def _baseline(federation: Federation) -> Path:
    return federation.directory / "baseline"
