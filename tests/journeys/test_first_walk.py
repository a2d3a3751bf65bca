"""The whole road with three sites on a small cut of real baskets: real processes, TLS, broker and SuperLink.

The steps build on one another, so they stand in the order in which they happen; each says what would go wrong.
"""

import json
import os
import queue
import sqlite3
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from scipy import stats

from center import settings as center_settings
from center.keys import CenterKeys
from center.mqtt import road
from edge import settings as edge_settings
from edge.records.store import Store
from protocol import lessons, packing
from protocol.errors import FederationError
from protocol.messages import MaskedUpdate
from protocol.models import weights as model_weights
from simulation import datasets, rollouts, serving
from simulation.federation import Federation, release_of, served_by, wait_for_fusion
from simulation.processes import CommandFailedError, wait_until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(400)]

SITES = 3
ROUNDS = 3
BITS = 20
EDGE = {
    "trial": {"seconds": 1.5},
    "training": {"niceness": 0},  # or learners wait for whatever else this machine does
}


@pytest.fixture(scope="module")
def data():
    return datasets.complete_journey(SITES, fraction=0.03)


@pytest.fixture(scope="module")
def federation(tmp_path_factory, data):
    with Federation.fresh(tmp_path_factory.mktemp("walk") / "federation", federation="hanse-walk") as walk:
        walk.found(
            settings={
                "rounds": {"min_cohort": 3, "deadline_seconds": 120, "gather_seconds": 30},
                "model": {"min_support": 3, "embedding_size": 32, "history_length": 20, "negatives": 128},
                "gate": {
                    "min_top10_overlap": 0.8,
                    "min_ndcg": 0.8,
                    "min_events": 1,  # few baskets and two rounds: what a candidate is worth is not the story here
                    "max_ndcg_drop": 1.0,
                    "max_segment_drop": 1.0,
                },
                "rollout": {"bake_seconds": 2.5, "min_events": 1},
            }
        )
        for part in data.sites:
            walk.join(part.name, min_cohort=3, settings=EDGE)
        walk.command("hanse-center", "admit")
        walk.command("hanse-center", "rings", "--canary", ",".join(site.name for site in walk.sites))
        walk.command("hanse-center", "catalogue", str(data.write_catalogue(walk.directory)))
        for site, part in zip(walk.sites, data.sites, strict=True):
            events, items = data.write_site(part, walk.directory / "export" / site.name)
            walk.command("hanse-edge", "import", "items", str(items), "--json", at=site.directory)
            walk.command("hanse-edge", "import", "events", str(events), "--json", at=site.directory)
        walk.serve_all()
        yield walk


def children(federation: Federation) -> list:
    return list(federation.children.values())


def test_importing_twice_changes_nothing(federation, data) -> None:
    site, part = federation.sites[0], data.sites[0]
    events, _ = data.write_site(part, federation.directory / "export" / site.name)
    again = json.loads(federation.command("hanse-edge", "import", "events", str(events), "--json", at=site.directory))
    assert again["added"] == 0
    assert again["duplicates"] == len(part.events)
    assert again["rejected"] == 0


def test_a_shop_that_was_alone_joins_with_its_books_and_settings(federation, tmp_path) -> None:
    shop = tmp_path / "alone"
    items = tmp_path / "items.csv"
    items.write_text("item,title\nown-pie,Our own pie\n", "utf-8")
    federation.command("hanse-edge", "new", "alone", "--port", "1", at=shop)
    with (shop / "edge.toml").open("a", encoding="utf-8") as file:
        file.write('\n[store]\ndurability = "normal"\n')
    federation.command("hanse-edge", "import", "items", str(items), at=shop)
    other, own = (
        json.loads(federation.command("hanse-center", "enroll", name, "--json"))["token"] for name in ("other", "alone")
    )
    with pytest.raises(CommandFailedError, match="this edge is alone"):
        federation.command("hanse-edge", "join", other, at=shop)
    federation.command("hanse-edge", "join", own, at=shop)
    with pytest.raises(CommandFailedError, match="has joined a federation"):
        federation.command("hanse-edge", "join", own, at=shop)
    told = edge_settings.load(shop)
    assert (told.site.federation, told.serving.port, told.store.durability) == ("hanse-walk", 1, "normal")
    with Store.open(shop / "store.db") as store:
        assert store.item("own-pie") is not None
    federation.command("hanse-center", "remove", "alone")


def test_a_used_token_admits_nobody_else(federation, tmp_path) -> None:
    token = json.loads(federation.command("hanse-center", "enroll", "stranger", "--json"))["token"]
    words = ["hanse-edge", "join", token, "--port", "1", "--json"]
    federation.command(*words, at=tmp_path / "first")
    with pytest.raises(CommandFailedError, match="wrong, used or expired"):
        federation.command(*words, at=tmp_path / "second")
    assert not (tmp_path / "second" / "edge.toml").exists()
    federation.command("hanse-center", "remove", "stranger")


def test_before_the_first_release_an_edge_serves_popularity_and_says_so(federation, data) -> None:
    with federation.sites[0].client() as client:
        answer = client.post("/v1/recommendations", json={"user": data.sites[0].test.users[0]}).json()
    assert len(answer["items"]) == 10
    assert answer["release"] is None
    assert "no_release" in answer["reasons"]


def test_a_wrong_api_key_is_refused(federation) -> None:
    answer = httpx.post(
        f"{federation.sites[0].url}/v1/recommendations",
        json={"user": "u"},
        headers={"Authorization": "Bearer wrong"},
        trust_env=False,
    )
    assert answer.status_code == 401


@pytest.fixture(scope="module")
def campaign(federation) -> dict:
    """A campaign whose center is killed after the first training round, and started again."""
    federation.command("hanse-center", "train", "--rounds", str(ROUNDS))

    def trained() -> int:
        rounds = federation.status()["campaign"]["rounds"]
        return sum(row["purpose"] == "train" and row["outcome"] == "summed" for row in rounds)

    wait_until(lambda: trained() >= 1, what="the first round", seconds=150, children=children(federation))
    federation.children.pop("center").kill()
    federation.start("center", "hanse-center", "serve")
    wait_until(
        lambda: federation.status()["campaign"]["state"] == "finished",
        what="the campaign",
        seconds=200,
        children=children(federation),
    )
    return federation.status()["campaign"]


def test_a_killed_campaign_resumes_at_the_next_round(campaign) -> None:
    steps = [row["step"] for row in campaign["rounds"] if row["purpose"] == "train" and row["outcome"] == "summed"]
    assert steps == list(range(1, ROUNDS + 1))
    assert sum(row["purpose"] == "popularity" and row["outcome"] == "summed" for row in campaign["rounds"]) == 1


def test_training_moved_the_weights_and_learnt_something(campaign, federation) -> None:
    folder = federation.center / "campaigns" / campaign["id"]
    first = model_weights.load((folder / "weights-0000.safetensors").read_bytes())
    last = model_weights.load((folder / f"weights-{ROUNDS:04}.safetensors").read_bytes())
    moved = np.linalg.norm(model_weights.flatten(last.tensors) - model_weights.flatten(first.tensors))
    assert moved > 0.1
    losses = [row["loss"] for row in campaign["rounds"] if row["purpose"] == "train" and row["outcome"] == "summed"]
    assert losses[-1] < losses[0]


def masked_words(federation: Federation, round_number: int) -> list[np.ndarray]:
    """The masked update that each edge handed to Flower, as it keeps it: words of 20 bits."""
    answers = [(site.directory / "answers" / f"{round_number}.bin").read_bytes() for site in federation.sites]
    campaign = federation.status()["campaign"]["id"]
    weights = (federation.center / "campaigns" / campaign / "weights-0000.safetensors").read_bytes()
    settings = center_settings.load(federation.center).rounds
    assert settings.word_bits == BITS
    layout = lessons.training_layout(
        model_weights.parameters(weights), coordinate_clip=settings.coordinate_clip, word_bits=BITS
    )
    packed = [bytes(MaskedUpdate.from_bytes(answer).packed) for answer in answers]
    return [packing.unpack(words, layout=layout)[: layout[0].length] for words in packed]


def test_the_unmasked_sum_is_the_plain_sum_to_the_last_unit(campaign, federation, data) -> None:
    """How often each item was bought in all shops together: the center's figure against the shops' own files."""
    counts = np.load(federation.center / "campaigns" / campaign["id"] / "popularity-1.npy")
    items = len(data.catalogue)
    plain = sum(np.bincount(part.events["row"].to_numpy(), minlength=items + 1) for part in data.sites)
    assert np.array_equal(counts, plain)


def test_what_crossed_the_transport_is_uniform_and_so_is_its_sum(campaign, federation) -> None:
    """Each update is under its masks, and all of them together still are: only t edges' shares take those away."""
    uploads = masked_words(federation, campaign["rounds"][-1]["round"])
    together = sum(uploads, start=np.zeros(1, np.uint32)) & np.uint32(2**BITS - 1)
    for words in [*uploads, together]:
        ends = words >> np.uint32(BITS - 8), words & np.uint32(0xFF)
        assert all(stats.chisquare(np.bincount(end, minlength=256)).pvalue > 1e-6 for end in ends)


@pytest.fixture(scope="module")
def release(federation, campaign) -> dict:
    del campaign
    made = json.loads(federation.command("hanse-center", "release", "--json"))
    served_by(federation.sites, dict.fromkeys((site.name for site in federation.sites), made["version"]), seconds=200)
    wait_for_fusion(federation.sites, made["sha256"], seconds=120, children=children(federation))
    return made


def test_every_edge_runs_exactly_what_was_signed(release, federation) -> None:
    for site in federation.sites:
        with site.client() as client:
            assert client.get("/readyz").json()["release"] == {
                "version": release["version"],
                "sha256": release["sha256"],
            }


def test_the_center_hears_what_each_edge_runs(release, federation) -> None:
    def heard() -> dict:
        return {edge: status.get("release") for edge, status in federation.status()["edges"].items()}

    expected = {site.name: release["version"] for site in federation.sites}
    wait_until(lambda: heard() == expected, what="the statuses", seconds=30)


def test_an_answer_comes_from_the_release_and_changes_after_an_event(release, federation, data) -> None:
    serving.check_event_changes_answer(federation.sites[0], data.sites[0])
    question = {"user": data.sites[0].test.users[0]}
    with federation.sites[0].client() as client:

        def in_time() -> bool:
            """On a busy machine the model may miss the deadline, and the answer says so; nothing else may be amiss."""
            said = client.post("/v1/recommendations", json=question).json()
            assert set(said["reasons"]) <= {"model_slow"}
            return not said["degraded"]

        wait_until(in_time, what="an answer with the model in it", seconds=60)
        answer = client.post("/v1/recommendations", json=question).json()
        near = client.post("/v1/similar", json={"item": answer["items"][0]["item"]}).json()
    assert answer["release"] == release["version"]
    assert len(near["items"]) == 10


def test_an_answer_leads_to_the_rounds_it_was_learnt_in(release, campaign, federation, data) -> None:
    site, part = federation.sites[0], data.sites[0]
    with site.client() as client:
        answer = client.post("/v1/recommendations", json={"user": part.test.users[0]}).json()
    for command, folder in (("hanse-edge", site.directory), ("hanse-center", federation.center)):
        traced = federation.command(command, "trace", answer["rec_id"], "--json", at=folder)
        assert release["sha256"] in traced
        assert campaign["id"] in traced
        log = json.loads(federation.command(command, "audit", "--json", at=folder))
        assert len(log["head"]) == 64


def test_the_serving_process_holds_no_torch_and_no_flower(release, federation) -> None:
    del release
    pid = federation.children[federation.sites[0].name].pid
    mapped = Path(f"/proc/{pid}/maps").read_text("ascii")
    assert "onnxruntime" in mapped
    assert "libtorch" not in mapped
    assert "flwr" not in mapped


def test_kill_9_loses_no_committed_event(release, federation, data) -> None:
    del release
    site, item = federation.sites[1], data.sites[1].events["item"][0]
    acknowledged: list[dict] = []

    def shop() -> None:
        with site.client() as client:
            for number in range(100_000):
                event = {"type": "view", "user": f"u{number % 7}", "item": item, "event_id": f"kill-{number}"}
                try:
                    answer = client.post("/v1/events", json=event)
                except httpx.TransportError:
                    return
                if answer.is_success:
                    acknowledged.append(event)

    shopping = threading.Thread(target=shop)
    shopping.start()
    wait_until(lambda: len(acknowledged) > 50, what="some events", seconds=30)
    federation.children.pop(site.name).kill()
    shopping.join()
    federation.serve(site)
    with site.client() as client:
        again = client.post("/v1/events", json={"events": acknowledged}).json()
    assert again == {"added": 0, "duplicates": len(acknowledged)}
    assert release_of(site) > 0  # and it serves the committed release at once


class Meddler:
    """Somebody with the center's own broker key, who changes a block."""

    def __init__(self, federation: Federation) -> None:
        settings = center_settings.load(federation.center)
        voice = road.publisher(federation.center, settings, CenterKeys.load(federation.center))
        voice.stop()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="meddler", protocol=mqtt.MQTTv311)
        self.client.tls_set(
            ca_certs=str(federation.center / "trust" / "ca.crt"),
            certfile=str(federation.center / "keys" / "mqtt.crt"),
            keyfile=str(federation.center / "keys" / "mqtt.key"),
        )
        self.client.connect(settings.broker.host, settings.broker.port)
        self.client.loop_start()
        self.topic = f"hanse/1/{settings.federation}/block"

    def read(self, topic: str) -> bytes:
        got: queue.Queue[bytes] = queue.Queue()
        self.client.on_message = lambda _c, _u, message: got.put(message.payload)
        self.client.subscribe(topic, qos=1)
        payload = got.get(timeout=10)
        self.client.unsubscribe(topic)
        return payload

    def write(self, topic: str, payload: bytes) -> None:
        self.client.publish(topic, payload, qos=1, retain=True).wait_for_publish(10)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def test_a_tampered_block_is_refused_and_the_mended_one_is_taken(release, federation) -> None:
    site = federation.sites[2]
    federation.children.pop(site.name).stop()
    for name in ("a.json", "b.json", "standing.json"):
        (site.directory / "slots" / name).unlink(missing_ok=True)
    for slot in ("a", "b"):
        for path in sorted((site.directory / "slots" / slot).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    meddler = Meddler(federation)
    try:
        with sqlite3.connect(federation.center / "published.db") as ledger:
            topics = [row[0] for row in ledger.execute("SELECT topic FROM blocks WHERE delivered")]
        originals = {topic: meddler.read(topic) for topic in topics}
        for topic, payload in originals.items():
            meddler.write(topic, payload[:100] + bytes([payload[100] ^ 1]) + payload[101:])
        child = federation.serve(site)
        wait_until(lambda: "has digest" in child.log.read_text("utf-8"), what="the refusal", seconds=60)
        assert release_of(site) == 0
        for topic, payload in originals.items():
            meddler.write(topic, payload)
        served_by([site], {site.name: release["version"]}, seconds=90)
    finally:
        meddler.close()


def test_a_bad_release_is_taken_back_by_itself(release, campaign, federation) -> None:
    """A model that ranks the wrong way round, sent past the gate. It leaves another number on good files behind."""
    path = federation.center / "campaigns" / campaign["id"] / "weights-0000.safetensors"
    good = model_weights.load(path.read_bytes())
    path.write_bytes(replace(good, tensors={name: -tensor for name, tensor in good.tensors.items()}).to_bytes())
    canaries = [site.name for site in federation.sites]
    told = rollouts.drill(federation, federation.sites, canaries=canaries, good=release["version"], say=lambda _: None)
    assert told["others"] == []
    assert "NDCG@10 fell" in told["why"]
    for site in federation.sites:
        with site.client() as client:
            served = client.get("/readyz").json()["release"]
        assert served == {"version": told["successor"], "sha256": release["sha256"]}


def test_the_doctors_find_nothing_but_the_offline_keys(release, federation) -> None:
    del release
    for site in federation.sites:
        found = json.loads(federation.command("hanse-edge", "doctor", "--json", at=site.directory))
        assert [finding for finding in found if finding["problem"]] == []
    with pytest.raises(FederationError):
        federation.command("hanse-center", "doctor", "--json")


def test_no_process_survives_the_end(federation) -> None:
    pids = [child.pid for child in federation.children.values()]
    marker = str(federation.directory)
    federation.stop()
    time.sleep(0.5)
    left = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if marker in line:
                left.append(int(entry.name))
    assert left == []
