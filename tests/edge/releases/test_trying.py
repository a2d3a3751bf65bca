"""A trial in a live service: what serves is swapped between two requests, and the way back is always open."""

import asyncio
import errno
import shutil
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from edge import durable, tuning
from edge.releases.assembly import Fetched, measure
from edge.releases.installer import Installer
from edge.releases.rehearsal import Rehearsed
from edge.releases.stage import Stage
from edge.releases.trial_record import Outcome, TrialRecord
from edge.releases.trying import Trying
from edge.serving.degradation import Reason
from edge.serving.memory import Memory
from edge.serving.query import Query
from edge.settings import TrialSettings
from protocol import rec_id
from protocol.bundle import CARD, Entry, Manifest, bundle_digest
from protocol.errors import NoSpaceError, UnavailableError, UntrustedReleaseError
from protocol.identity import FederationId
from protocol.release import Offer, Place

NOW = datetime(2026, 11, 21, tzinfo=UTC)
LIMITS = TrialSettings(seconds=60, min_answers=5)
FLIPPED = np.zeros((13, 4))
FLIPPED[1:, 0] = [1, -1] * 6


class Stand:
    """One edge: a real installer, a real service, a clock that is turned by hand."""

    def __init__(self, folder, service, make_bundle, limits):
        self.folder, self.service, self.make_bundle = folder, service, make_bundle
        self.installer = Installer(folder, federation=FederationId("hanse"), edge_version="0.1.0")
        self.time, self.notes = 0.0, []
        self.trying = Trying(
            service=service,
            installer=self.installer,
            limits=limits,
            keep=lambda record: record.save(folder),
            note=lambda kind, **facts: self.notes.append((kind, facts)),
            changed=lambda: None,
            clock=lambda: self.time,
        )

    def install(self, directory, version, *, place=Place.ALL):
        copy = self.folder / "blocks" / "bundle" / str(version)
        shutil.copytree(directory, copy)
        files = measure(copy)
        manifest = Manifest(files={path: Entry(file=file, blocks=()) for path, file in files.items()})
        offer = Offer(
            place=place,
            version=version,
            sha256=bundle_digest(files),
            bytes=manifest.total_bytes,
            evaluation={},
        )
        fetched = Fetched(directory=copy, offer=offer, manifest=manifest, expires=NOW + timedelta(days=1))
        if place is Place.CATALOGUE:
            return self.installer.install_catalogue(fetched, now=NOW)
        return self.installer.install(fetched, now=NOW)

    def bundle(self, version, **parts):
        return self.install(self.make_bundle(version, **parts), version)

    def load(self, installed):
        release = tuning.load_release(self.installer, installed, like=self.service.loaded.release)
        return self.service.loaded.with_release(release)

    async def begin(self, installed, **figures):
        self.installer.begin_trial(installed, now_ms=1)
        await self.trying.begin(installed, self.load(installed), Rehearsed(**figures))

    async def pass_time(self, seconds):
        self.time += seconds
        await self.trying.look()

    async def ask(self, count=1, **query):
        asked = Query(**(query or {"history": ["i11"]}), limit=4)
        return [await self.service.recommend(asked) for _ in range(count)][-1]

    def record(self):
        return TrialRecord.read(self.folder)

    def kinds(self):
        return [kind for kind, _ in self.notes]


@pytest.fixture
def make_stand(tmp_path, catalogue_directory, make_bundle, make_service, stocked):
    def make(limits=LIMITS):
        stand = Stand(tmp_path / "edge", make_service(), make_bundle, limits)
        stand.install(catalogue_directory, 1, place=Place.CATALOGUE)
        first = stand.bundle(1)
        stand.installer.commit(first)
        release = tuning.load_release(stand.installer, first)
        stand.service.swap(type(stand.service.loaded).of(stocked, release))
        return stand

    return make


@pytest.fixture
def stand(make_stand):
    return make_stand()


def test_a_release_that_holds_is_committed_after_its_time(stand):
    async def run():
        second = stand.bundle(2)
        await stand.begin(second)
        assert (await stand.ask(20)).release == 2
        assert stand.service.standby.release.version == 1
        assert stand.record().outcome is Outcome.ON_TRIAL
        await stand.pass_time(59)
        assert stand.installer.bundle().offer.version == 1  # a crash now would serve 1 again
        await stand.pass_time(1)

    asyncio.run(run())
    assert stand.installer.bundle().offer.version == 2
    assert stand.service.standby is None
    record = stand.record()
    assert (record.version, record.outcome, record.answers, record.errors) == (2, Outcome.KEPT, 20, 0)
    assert stand.kinds() == ["committed"]


def test_a_model_that_fails_while_serving_goes_back_between_two_requests(stand):
    async def run():
        await stand.begin(stand.bundle(2))
        stand.service.loaded.release.ranker._session = Broken()
        assert (await stand.ask(2)).reasons == (Reason.MODEL_ERROR,)
        await stand.pass_time(1)
        answer = await stand.ask()
        assert (answer.release, answer.reasons) == (1, ())
        await stand.pass_time(100)

    asyncio.run(run())
    assert stand.installer.bundle().offer.version == 1
    assert "2 of 2 answers failed" in stand.installer.standing().refusal_of(2).why
    assert (stand.record().outcome, stand.record().errors) == (Outcome.WENT_BACK, 2)
    assert stand.kinds() == ["went back"]
    assert b'hanse_edge_trials_total{outcome="went back"} 1.0' in stand.service.metrics.page()
    assert b"hanse_edge_answers_failed_total 2.0" in stand.service.metrics.page()


class Broken:
    """A session that fails in every way a graph can."""

    def run(self, *_):
        raise RuntimeError("out of range")


def test_an_answer_that_raises_counts_as_failed(stand):
    async def run():
        await stand.begin(stand.bundle(2))
        stand.service.loaded.release.ranker.history_length = None
        for _ in range(2):
            with pytest.raises(TypeError):
                await stand.ask()
        await stand.pass_time(1)
        assert (await stand.ask()).release == 1

    asyncio.run(run())


def test_a_store_that_cannot_be_read_is_no_fault_of_the_release(stand, monkeypatch):
    async def run():
        await stand.begin(stand.bundle(2))
        with monkeypatch.context() as away:
            away.setattr(stand.service.store, "past", _away)
            for _ in range(10):
                with pytest.raises(UnavailableError):
                    await stand.ask(user="ada")
        await stand.pass_time(1)
        assert (await stand.ask()).release == 2

    asyncio.run(run())


def _away(*_args, **_keywords):
    raise UnavailableError("the disk is away")


def test_a_slow_release_goes_back(stand):
    async def run():
        await stand.ask(10)
        await stand.begin(stand.bundle(2))
        for _ in range(10):
            stand.service.tally.note(1.0, failed=False)
        await stand.pass_time(1)
        assert (await stand.ask()).release == 1

    asyncio.run(run())
    assert "1000 ms" in stand.installer.standing().refusal_of(2).why
    assert stand.record().slow == 10


def test_a_release_that_answers_something_else_never_serves(make_stand):
    stand = make_stand(TrialSettings(min_overlap=0.9))

    async def run():
        for row in range(2, 12):
            await stand.ask(2, history=[f"i{row}"])
        with pytest.raises(UntrustedReleaseError, match=r"share .* with those before"):
            await stand.begin(stand.bundle(2, vectors=FLIPPED))
        assert (await stand.ask()).release == 1

    asyncio.run(run())
    assert stand.installer.on_trial() is None
    assert stand.record().queries == 20
    assert stand.record().overlap < 0.9


def test_a_release_that_ranks_this_sites_baskets_worse_never_serves(stand):
    async def run():
        with pytest.raises(UntrustedReleaseError, match="NDCG@10 on 200 baskets"):
            await stand.begin(stand.bundle(2), baskets=200, ndcg_new=0.1, ndcg_old=0.2, ndcg_spread=0.01)

    asyncio.run(run())
    assert stand.service.loaded.release.version == 1
    assert stand.record().events == 200


def test_a_newer_release_ends_the_trial_at_once(stand):
    async def run():
        tried = stand.bundle(2)
        await stand.begin(tried)
        await stand.trying.supersede(Offer(**{**_fields(tried.offer), "version": 3}))
        assert (await stand.ask()).release == 1
        await stand.pass_time(1000)

    asyncio.run(run())
    assert stand.installer.on_trial() is None
    assert stand.installer.standing().refusal_of(2) is None
    assert stand.record().outcome is Outcome.SUPERSEDED
    assert stand.kinds() == ["superseded"]


def _fields(offer):
    return {name: getattr(offer, name) for name in offer.__slots__}


def test_a_bundle_that_was_committed_here_is_taken_up_without_a_trial(stand):
    async def run():
        await stand.begin(stand.bundle(2))
        await stand.pass_time(60)
        older = next(found for found in stand.installer.slots() if found.offer.version == 1)
        rollback = Offer(**{**_fields(older.offer), "version": 3})
        taken = stand.installer.adopt(rollback, expires=NOW + timedelta(days=1), now=NOW)
        await stand.trying.take_up(taken, stand.load(taken))
        assert (await stand.ask()).release == 3

    asyncio.run(run())
    assert stand.installer.bundle().offer.version == 3
    assert stand.record().outcome is Outcome.KEPT
    assert stand.kinds() == ["committed", "taken up"]


def test_what_serves_goes_on_under_a_newer_number(stand):
    async def run():
        model = stand.service.loaded.release.ranker
        serving = stand.installer.bundle()
        offer = Offer(**{**_fields(serving.offer), "version": 5})
        taken = stand.installer.adopt(offer, expires=NOW + timedelta(days=1), now=NOW)
        await stand.trying.renumber(taken)
        answer = await stand.ask()
        assert stand.service.loaded.release.ranker is model
        named = rec_id.parse(answer.rec_id)
        assert (named.version, named.sha256_prefix) == (5, serving.sha256[:8])

    asyncio.run(run())
    assert stand.record().version == 5


def test_what_is_bought_during_a_trial_is_known_after_going_back(stand, buy):
    """Also where the two releases number other items, so that nothing is shared."""

    async def run():
        second = stand.bundle(2)
        stand.installer.begin_trial(second, now_ms=1)
        loaded = type(stand.service.loaded).of(stand.service.store, tuning.load_release(stand.installer, second))
        assert loaded.shelf.numbering is not stand.service.loaded.shelf.numbering
        await stand.trying.begin(second, loaded, Rehearsed())
        await stand.service.add_events([buy(f"u{number}", "i3", day=90) for number in range(30)])
        assert (await stand.ask(user="stranger")).items[0].item == "i3"
        stand.service.loaded.release.ranker._session = Broken()
        await stand.ask(2)
        await stand.pass_time(1)
        answer = await stand.ask(user="stranger")
        assert answer.items[0].item == "i3"

    asyncio.run(run())
    assert stand.service.loaded.release.version == 1


class Willing:
    """A rehearsal that finds nothing wrong."""

    def __init__(self):
        self.asked = []

    def run(self, installed, which):
        self.asked.append((installed.offer.version, which))
        return Rehearsed()


def staged(stand, *, left_mb):
    """What the updater asks, on a machine where so much memory is left."""
    rehearsal, loop = Willing(), asyncio.get_running_loop()
    stage = Stage(
        stand.folder,
        service=stand.service,
        installer=stand.installer,
        trying=stand.trying,
        rehearsal=rehearsal,
        note=lambda kind, **facts: stand.notes.append((kind, facts)),
        loop=lambda: loop,
        memory=Memory(ceiling=500 << 20, loaded=lambda: stand.service.loaded, resident=lambda: (500 - left_mb) << 20),
    )
    return stage, rehearsal


def test_a_release_that_does_not_fit_into_memory_is_refused_before_it_is_loaded(stand):
    async def run():
        second = stand.bundle(2)
        stand.installer.begin_trial(second, now_ms=1)
        stage, rehearsal = staged(stand, left_mb=10)
        with pytest.raises(UntrustedReleaseError, match=r"does not fit: it needs about 16 MB .* \(500\) leaves 10"):
            await asyncio.to_thread(stage.try_out, second)
        assert rehearsal.asked == []
        assert (await stand.ask()).release == 1

    asyncio.run(run())
    assert stand.kinds() == ["went back"]
    assert "serving.memory_mb" in stand.notes[0][1]["why"]
    assert stand.installer.standing().trial is None


def test_a_release_that_fits_is_tried_out(stand):
    async def run():
        second = stand.bundle(2)
        stand.installer.begin_trial(second, now_ms=1)
        stage, rehearsal = staged(stand, left_mb=20)
        await asyncio.to_thread(stage.try_out, second)
        assert rehearsal.asked == [(2, "trial")]
        assert (await stand.ask()).release == 2

    asyncio.run(run())


def test_a_full_disk_puts_the_decision_off(stand, monkeypatch):
    async def run():
        await stand.begin(stand.bundle(2))
        with monkeypatch.context() as full:
            full.setattr(durable, "write", _full)
            with pytest.raises(NoSpaceError):
                await stand.pass_time(60)
            assert (await stand.ask()).release == 2
            assert stand.service.standby is not None
        await stand.pass_time(1)

    asyncio.run(run())
    assert stand.installer.bundle().offer.version == 2


def _full(*_args, **_keywords):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_requests_go_on_while_a_release_is_warmed_up_and_swapped(stand):
    """No answer waits for more than one question that the trial asks by itself."""
    answers, longest = [], 0.0

    async def shoppers(done):
        nonlocal longest
        loop = asyncio.get_running_loop()
        while not done.is_set():
            began = loop.time()
            await asyncio.sleep(0)
            longest = max(longest, loop.time() - began)
            answers.append(await stand.ask())

    async def run():
        await stand.ask(64)
        done = asyncio.Event()
        shopping = asyncio.create_task(shoppers(done))
        await stand.begin(stand.bundle(2))
        stand.service.loaded.release.ranker._session = Broken()
        await asyncio.sleep(0.02)
        await stand.pass_time(1)
        await asyncio.sleep(0.02)
        done.set()
        await shopping

    asyncio.run(run())
    releases = [answer.release for answer in answers]
    turns = [release for number, release in enumerate(releases) if not number or releases[number - 1] != release]
    assert turns == [1, 2, 1]
    assert all(len(answer.items) == 4 for answer in answers)
    assert longest < 0.1


def test_the_watch_outlives_what_goes_wrong_in_it(stand, monkeypatch):
    monkeypatch.setattr("edge.releases.trying.LOOK_SECONDS", 0.01)
    tried, kept = [], asyncio.Event()

    def full_at_first(path, data, **_):
        tried.append(path)
        if len(tried) > 3:
            loop.call_soon_threadsafe(kept.set)
            return written(path, data)
        return _full()

    async def run():
        nonlocal loop
        loop = asyncio.get_running_loop()
        await stand.begin(stand.bundle(2))
        monkeypatch.setattr(durable, "write", full_at_first)
        stand.time = 60
        watch = asyncio.create_task(stand.trying.watch())
        await asyncio.wait_for(kept.wait(), 10)
        await stand.trying.look()  # waits for its turn
        watch.cancel()

    written, loop = durable.write, None
    asyncio.run(run())
    assert stand.installer.bundle().offer.version == 2


def test_the_card_is_part_of_what_names_a_bundle(stand):
    files = stand.installer.bundle().files
    assert CARD in files
    assert stand.service.loaded.release.sha256 == bundle_digest(files)
