"""The real `hanse-edge serve`, without a center: killed in a trial it comes back, and a crash loop comes to an end."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge import audit, tuning
from edge.keys import Keys
from edge.records.events import Event, EventType
from edge.records.store import Store
from edge.releases.assembly import Fetched, measure
from edge.releases.installer import Installer
from edge.releases.renewal import PAIR
from edge.releases.trial_record import Outcome, TrialRecord
from protocol import rec_id
from protocol.audit import check_chain
from protocol.bundle import Entry, Manifest, bundle_digest
from protocol.identity import FederationId
from protocol.release import Offer, Place
from protocol.sealing import SealingKey

SETTINGS = """
[site]
name = "luebeck"
federation = "hanse"
[center]
gateway = "https://127.0.0.1:{nobody}"
broker_host = "127.0.0.1"
broker_port = {nobody}
[serving]
port = {port}
require_api_key = false
[trial]
seconds = {seconds}
max_boots = 2
[training]
niceness = 0
"""
"""Niceness: a rehearsal at the lowest priority waits for the tests beside this one."""


class Edge:
    """One edge's folder, and the process that serves from it."""

    def __init__(self, road, catalogue_directory, make_bundle, *, seconds=600, joined=False):
        """A folder with one committed release; `joined`: without one, and with the keys to hear the center."""
        self.road, self.make_bundle = road, make_bundle
        self.folder = road.folder / "edge-luebeck"
        papers = road.papers("luebeck")
        Keys.generate().save(self.folder / "keys")
        (self.folder / PAIR).write_bytes(papers["key"].read_bytes() + papers["certificate"].read_bytes())
        trust = self.folder / "trust"
        trust.mkdir()
        shutil.copy(papers["authority"], trust / "ca.crt")
        for name in ("roster", "center"):
            public = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
            (trust / f"{name}.pub").write_text(public.hex())
        (trust / "root.json").write_bytes(road.repository.first_root)
        self.port, nobody = (_free_port() for _ in range(2))
        if joined:
            nobody = road.port
            center_key = road.signer.public_key().public_bytes_raw()
            (trust / "center.pub").write_text(center_key.hex())
            (self.folder / "keys" / "seal.key").write_bytes(road.sealing["luebeck"].to_bytes())
        (self.folder / "edge.toml").write_text(SETTINGS.format(port=self.port, nobody=nobody, seconds=seconds))
        if not joined:
            self.install(catalogue_directory, 1, place=Place.CATALOGUE)
            self.installer.commit(self.bundle(1))
        with Store.open(self.folder / "store.db") as store:
            events = [(user, item) for user in range(60) for item in range(3)]
            store.add_events(_bought(f"u{user}", f"i{1 + (user + item) % 12}", 10 * item) for user, item in events)
        self.process = None

    @property
    def installer(self):
        return Installer(self.folder, federation=FederationId("hanse"), edge_version=tuning.EDGE_VERSION)

    def install(self, directory, version, *, place=Place.ALL):
        copy = self.folder / "blocks" / "bundle" / str(version)
        shutil.copytree(directory, copy)
        files = measure(copy)
        manifest = Manifest(files={path: Entry(file=file, blocks=()) for path, file in files.items()})
        named = {"place": place, "version": version, "sha256": bundle_digest(files), "bytes": manifest.total_bytes}
        now = datetime.now(UTC)
        fetched = Fetched(
            directory=copy, offer=Offer(**named, evaluation={}), manifest=manifest, expires=now + timedelta(days=1)
        )
        if place is Place.CATALOGUE:
            return self.installer.install_catalogue(fetched, now=now)
        return self.installer.install(fetched, now=now)

    def bundle(self, version, *, break_it=lambda _: None):
        directory = self.make_bundle(version)
        break_it(directory)
        return self.install(directory, version)

    def begin(self, installed):
        self.installer.begin_trial(installed, now_ms=1)

    def serve(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edge.cli", "serve", "--dir", str(self.folder)], stderr=subprocess.PIPE, text=True
        )
        os.set_blocking(self.process.stderr.fileno(), False)
        wait_for(lambda: self.release() is not None, self)

    def release(self):
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5, trust_env=False).json()
        except httpx.TransportError:
            assert self.process.poll() is None, self.process.stderr.read()
            return None
        return answer["release"]["version"] if answer["release"] else 0

    def ask(self):
        url = f"http://127.0.0.1:{self.port}/v1/recommendations"
        return httpx.post(url, json={"history": ["i3"]}, timeout=5, trust_env=False).json()

    def kill(self):
        self.end(signal.SIGKILL)

    def end(self, how=signal.SIGTERM):
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(20)
            self.process.stderr.close()
            self.process = None

    def log(self):
        entries = audit.read(self.folder)
        check_chain(entries)
        return [entry.kind for entry in entries]


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _bought(user, item, day):
    time_ms = int(time.time() * 1000) - 86_400_000 * (100 - day)
    return Event(event_id=f"{user}-{item}-{day}", type=EventType.PURCHASE, user=user, item=item, time_ms=time_ms)


def wait_for(what, edge, *, seconds=20):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"{edge.installer.standing()} {edge.process.stderr.read()}"
        time.sleep(0.05)


@pytest.fixture
def make_edge(quiet_road, catalogue_directory, make_bundle):
    made = []

    def make(**changes):
        made.append(Edge(quiet_road, catalogue_directory, make_bundle, **changes))
        return made[0]

    yield make
    for edge in made:
        edge.end(signal.SIGKILL)


def test_an_edge_that_is_killed_in_a_trial_comes_back_to_it_and_gives_up_after_so_many_times(make_edge):
    edge = make_edge()
    second = edge.bundle(2)
    edge.begin(second)
    for _ in range(2):  # the process that began it has died once already
        edge.serve()
        wait_for(lambda: edge.release() == 2, edge)
        assert edge.ask()["release"] == 2
        edge.kill()
    edge.serve()
    assert edge.release() == 1
    assert edge.ask()["release"] == 1
    assert edge.installer.on_trial() is None
    assert "crashed" in edge.installer.standing().refusal_of(2).why
    assert TrialRecord.read(edge.folder).outcome is Outcome.WENT_BACK
    edge.end()
    assert "went back" in edge.log()


def test_a_trial_that_outlives_orderly_restarts_is_committed(make_edge):
    edge = make_edge(seconds=5)
    edge.begin(edge.bundle(2))
    for _ in range(3):
        edge.serve()
        edge.end()
    edge.serve()
    wait_for(lambda: edge.installer.bundle().offer.version == 2, edge)
    edge.end()
    record = TrialRecord.read(edge.folder)
    assert (record.version, record.outcome) == (2, Outcome.KEPT)
    assert record.events > 0  # compared on this site's own baskets, in the rehearsal
    done = subprocess.run(
        [sys.executable, "-m", "edge.cli", "audit", "--json", "--dir", str(edge.folder)],
        capture_output=True,
        check=True,
    )
    assert "committed" in [entry["kind"] for entry in json.loads(done.stdout)["entries"]]


@pytest.mark.parametrize("broker_kind", ["mosquitto"], indirect=True)
def test_a_rollback_answers_from_the_old_model_within_seconds(road, catalogue_directory, make_bundle):
    """The whole road: a broker, a center's publisher, and the process that serves."""
    center = road.publisher()
    road.sealing["luebeck"] = SealingKey.generate()
    road.admit(center, "luebeck")
    road.publish(center, Place.CATALOGUE, catalogue_directory)
    first = make_bundle(1)
    road.publish(center, Place.ALL, first)
    edge = Edge(road, catalogue_directory, make_bundle, seconds=1, joined=True)
    try:
        edge.serve()
        wait_for(lambda: edge.installer.standing().committed, edge)
        road.publish(center, Place.ALL, make_bundle(2))
        wait_for(lambda: edge.installer.bundle().offer.version == 2, edge)
        began = time.monotonic()
        travelled = road.publish(center, Place.ALL, first)
        wait_for(lambda: edge.release() == 3, edge)
        took = time.monotonic() - began
        answer = edge.ask()
        named = rec_id.parse(answer["rec_id"])
        assert named.sha256_prefix == edge.installer.bundle().sha256[:8]
        assert edge.installer.bundle().read_card().version == 1
        assert travelled == 0
        assert took < 10
    finally:
        edge.end()
    steps = [kind for kind in edge.log() if kind != "catalogue installed"]
    assert steps == ["installed", "on trial", "committed"] * 2 + ["adopted", "taken up"]
    words = ["trace", answer["rec_id"], "--dir", str(edge.folder)]
    traced = subprocess.run([sys.executable, "-m", "edge.cli", *words], capture_output=True, text=True, check=True)
    assert traced.stdout.startswith("release 3, bundle ")
    assert "taken up" in traced.stdout


def crash_on_load(directory):
    """A graph that eats more memory than there is: a constant of 2^42 numbers."""
    from onnx import TensorProto, helper, load, save

    path = directory / "recommend" / "model.onnx"
    model = load(path, load_external_data=False)
    wanted = helper.make_tensor("huge_shape", TensorProto.INT64, [1], [1 << 42])
    model.graph.initializer.append(wanted)
    filled = helper.make_node("ConstantOfShape", ["huge_shape"], ["huge"])
    summed = helper.make_node("ReduceSum", ["huge"], ["huge_sum"], keepdims=0)
    added = helper.make_node("Add", ["renamed", "huge_sum"], ["state"])
    for node in model.graph.node:
        node.output[:] = ["renamed" if name == "state" else name for name in node.output]
        node.input[:] = ["renamed" if name == "state" else name for name in node.input]
    model.graph.node.extend([filled, summed, added])
    save(model, path)
    _renew_card(directory)


def _renew_card(directory):
    from dataclasses import replace

    from protocol.bundle import FileDigest
    from protocol.card import BundleCard

    card = BundleCard.from_bytes((directory / "card.json").read_bytes())
    files = {path: FileDigest.of((directory / path).read_bytes()) for path in card.files}
    (directory / "card.json").write_bytes(replace(card, files=files).to_bytes())


def test_a_release_that_eats_the_machine_dies_in_its_rehearsal(make_edge):
    edge = make_edge()
    edge.begin(edge.bundle(2, break_it=crash_on_load))
    edge.serve()
    wait_for(lambda: edge.installer.on_trial() is None, edge)
    assert edge.release() == 1
    assert "does not load" in edge.installer.standing().refusal_of(2).why
    wait_for(lambda: TrialRecord.read(edge.folder) is not None, edge)
    assert TrialRecord.read(edge.folder).outcome is Outcome.WENT_BACK
    edge.end()
