"""One release at a time, catalogue first; what is refused stops nothing but itself."""

import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from edge import updating
from edge.updating import Hands, Updater
from protocol.errors import RollbackError, UnavailableError, UntrustedReleaseError
from protocol.release import Kind, Offer

EXPIRES = datetime.now(UTC) + timedelta(days=1)


def _offered(kind, version):
    return SimpleNamespace(offer=Offer(kind=kind, version=version, epoch=1, evaluation={}, bytes=1), expires=EXPIRES)


class Shelf:
    """Center, road and installer in one: what is offered, what was installed, and what goes wrong."""

    def __init__(self):
        self.offers, self.installed, self.troubles, self.active = {}, [], [], []
        self.changed = threading.Event()

    def newest(self):
        if self.troubles:
            raise self.troubles.pop()
        return self.offers

    def fetch(self, offered, *, known):
        del known
        manifest = SimpleNamespace(to_bytes=lambda: b"manifest")
        return SimpleNamespace(offer=offered.offer, manifest=manifest)

    def known(self, _kind):
        return {}

    def check(self, offer, *, expires, now):
        assert expires > now
        if offer.target in self.installed:
            raise RollbackError(f"{offer.target} is not newer")

    def install_catalogue(self, fetched, *, now):
        del now
        self.installed.append(fetched.offer.target)

    def install(self, fetched, *, load, now):
        del now
        loaded = load("slot")
        self.installed.append(fetched.offer.target)
        return loaded

    def offer(self, *offered):
        self.offers = {one.offer.kind: one for one in offered}


@pytest.fixture
def shelf():
    return Shelf()


@pytest.fixture
def updater(shelf, monkeypatch):
    monkeypatch.setattr(updating, "_RETRY_SECONDS", 0.05)
    hands = Hands(
        load=lambda directory, version, _sha256: (directory, version),
        activate=shelf.active.append,
        changed=shelf.changed.set,
    )
    updater = Updater(sync=shelf, installer=shelf, hands=hands)
    updater.start()
    yield updater
    monkeypatch.setattr(updating, "_RETRY_SECONDS", 5.0)
    updater.stop()
    assert not updater._thread.is_alive()


def test_the_catalogue_comes_before_the_bundle_that_needs_it(shelf, updater, eventually) -> None:
    shelf.offer(_offered(Kind.BUNDLE, 4), _offered(Kind.CATALOGUE, 2))
    updater.wake()
    eventually(lambda: shelf.active)
    assert shelf.installed == ["catalogue/2.json", "bundle/4.json"]
    assert shelf.active == [("slot", 4)]
    assert shelf.changed.is_set()


def test_what_is_installed_is_not_fetched_again(shelf, updater, eventually) -> None:
    shelf.offer(_offered(Kind.BUNDLE, 4))
    updater.wake()
    eventually(lambda: shelf.active)
    shelf.offer(_offered(Kind.CATALOGUE, 1), _offered(Kind.BUNDLE, 4))
    updater.wake()
    eventually(lambda: "catalogue/1.json" in shelf.installed)
    assert shelf.installed.count("bundle/4.json") == 1


def test_an_interrupted_road_is_tried_again_without_being_woken(shelf, updater, eventually) -> None:
    shelf.offer(_offered(Kind.BUNDLE, 4))
    shelf.troubles = [UnavailableError("the broker is away"), UntrustedReleaseError("not yet whole")]
    updater.wake()
    eventually(lambda: shelf.active)
    eventually(lambda: updater.trouble is None)


def test_a_full_disk_does_not_end_updating(shelf, updater, eventually) -> None:
    """The thread that installs must outlive whatever one release does to it."""
    shelf.offer(_offered(Kind.BUNDLE, 4))
    shelf.troubles = [OSError(28, "No space left on device")]
    updater.wake()
    eventually(lambda: shelf.active)
