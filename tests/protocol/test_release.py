from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from protocol.errors import ExpiredReleaseError, MalformedMessageError, RollbackError, UntrustedReleaseError
from protocol.release import Kind, Offer, Ring, check_installable, is_release

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
OFFER = Offer(
    kind=Kind.BUNDLE,
    version=8,
    submodels=("recommend",),
    epoch=2,
    ring=Ring.CANARY,
    minimum_edge="0.1.0",
    evaluation={"ndcg@10": 0.2},
    bytes=20_000_000,
)


def check(offer=OFFER, *, installed=7, epoch=2, edge="0.1.0", expires=NOW + timedelta(days=1)):
    check_installable(
        offer, installed_version=installed, center_epoch_seen=epoch, edge_version=edge, expires=expires, now=NOW
    )


def test_a_newer_release_may_be_installed():
    check()


@pytest.mark.parametrize("installed", [8, 9])
def test_the_same_or_an_older_version_is_not_installed(installed):
    with pytest.raises(RollbackError, match=f"bundle 8 is not newer than installed {installed}"):
        check(installed=installed)


def test_a_center_that_returns_from_the_dead_harms_nobody():
    with pytest.raises(RollbackError, match="epoch 3 rules"):
        check(epoch=3)


def test_a_standby_with_a_higher_epoch_may_release():
    check(epoch=1)


@pytest.mark.parametrize("late", [timedelta(0), timedelta(seconds=1), timedelta(days=365)])
def test_a_replayed_release_dies_with_its_metadata(late):
    with pytest.raises(ExpiredReleaseError):
        check(expires=NOW - late)


@pytest.mark.parametrize(("edge", "fits"), [("0.0.9", False), ("0.1.0", True), ("0.10.0", True), ("1.0.0rc1", True)])
def test_old_edge_software_waits_for_its_update(edge, fits):
    if fits:
        check(edge=edge)
    else:
        with pytest.raises(UntrustedReleaseError, match=r"needs edge software 0\.1\.0"):
            check(edge=edge)


def test_an_offer_survives_signed_metadata():
    assert Offer.from_custom("bundle/8.json", OFFER.to_custom()) == OFFER


@pytest.mark.parametrize(
    "change",
    [
        {"version": 9},
        {"kind": "catalogue"},
        {"kind": "firmware"},
        {"version": "8"},
        {"epoch": None},
        {"ring": "everybody"},
        {"submodels": [1]},
        {"bytes": -1},
        {"evaluation": "good"},
    ],
)
def test_custom_fields_that_lie_are_refused(change):
    with pytest.raises(MalformedMessageError):
        Offer.from_custom("bundle/8.json", OFFER.to_custom() | change)


@pytest.mark.parametrize("custom", [None, [], {}, {"kind": "bundle"}])
def test_targets_without_a_release_are_refused(custom):
    with pytest.raises(MalformedMessageError):
        Offer.from_custom("bundle/8.json", custom)


def test_only_releases_are_taken_for_releases():
    assert is_release(OFFER.target)
    assert is_release(replace(OFFER, kind=Kind.CATALOGUE).target)
    assert not any(is_release(name) for name in ("bundle/0.json", "bundle/08.json", "policy/1.json", "bundle/8.json.x"))
