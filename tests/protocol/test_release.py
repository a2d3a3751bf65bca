from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from protocol.errors import ExpiredReleaseError, MalformedMessageError, RollbackError, UntrustedReleaseError
from protocol.identity import EdgeId
from protocol.release import (
    ROLES,
    WHOLE_QUEUE,
    Kind,
    Offer,
    Pace,
    Place,
    Ring,
    check_installable,
    is_target,
    offered_to,
    parse_target,
    queue_place,
    role_of,
    target_name,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
OFFER = Offer(
    place=Place.CANARY,
    version=8,
    sha256="ab" * 32,
    submodels=("recommend",),
    epoch=2,
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
    assert Offer.from_custom("canary/8.json", OFFER.to_custom()) == OFFER


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "ab"},
        {"sha256": "AB" * 32},
        {"epoch": None},
        {"epoch": -1},
        {"submodels": [1]},
        {"bytes": -1},
        {"bytes": True},
        {"evaluation": "good"},
        {"minimum_edge": "newest"},
        {"audit": "yes"},
    ],
)
def test_custom_fields_that_lie_are_refused(change):
    with pytest.raises(MalformedMessageError):
        Offer.from_custom("canary/8.json", OFFER.to_custom() | change)


@pytest.mark.parametrize("custom", [None, [], {}, {"sha256": "ab" * 32}])
def test_targets_without_a_release_are_refused(custom):
    with pytest.raises(MalformedMessageError):
        Offer.from_custom("canary/8.json", custom)


@pytest.mark.parametrize("name", ["roster/8.json", "policy/8.json", "pace/8.json"])
def test_a_release_stands_only_where_releases_stand(name):
    with pytest.raises(MalformedMessageError, match="no place for a release"):
        Offer.from_custom(name, OFFER.to_custom())


def test_names_of_targets_are_read_as_they_are_written():
    assert all(parse_target(target_name(place, 12)) == (place, 12) for place in Place)


@pytest.mark.parametrize(
    "name",
    ["canary/0.json", "canary/08.json", "firmware/1.json", "canary/8.json.x", "../canary/8.json", "canary8.json"],
)
def test_other_names_are_no_targets(name):
    assert not is_target(name)
    with pytest.raises(MalformedMessageError):
        parse_target(name)


def test_every_place_is_signed_for_by_one_role():
    assert sorted(place for places in ROLES.values() for place in places) == sorted(Place)
    assert role_of(Place.CANARY) == "releases"
    assert role_of(Place.ALL) == "wide"


def test_a_catalogue_is_told_from_a_bundle_by_its_place():
    assert OFFER.kind is Kind.BUNDLE
    assert replace(OFFER, place=Place.CATALOGUE).kind is Kind.CATALOGUE


LUEBECK = EdgeId("luebeck")


def at(place, version, sha256="cd" * 32):
    return replace(OFFER, place=place, version=version, sha256=sha256)


OFFERS = [
    at(Place.ALL, 5),
    at(Place.EARLY, 6),
    at(Place.CANARY, 7),
    at(Place.CANDIDATE, 8),
    at(Place.CATALOGUE, 9),
]


@pytest.mark.parametrize(("ring", "version"), [(Ring.CANARY, 7), (Ring.EARLY, 6), (Ring.ALL, 5)])
def test_each_ring_takes_the_newest_that_has_come_to_it(ring, version):
    found = offered_to(OFFERS, ring=ring, edge=LUEBECK, reach={5: WHOLE_QUEUE})
    assert found is not None
    assert found.version == version


def test_the_canaries_go_on_to_what_everybody_gets():
    assert offered_to([*OFFERS, at(Place.ALL, 10)], ring=Ring.CANARY, edge=LUEBECK, reach={}).version == 10


def test_in_ring_all_one_waits_for_ones_turn():
    offers = [at(Place.ALL, 5), at(Place.ALL, 6, "ef" * 32)]
    turn = queue_place(LUEBECK, "ef" * 32)
    for reach, version in ((turn, 5), (turn + 1, 6)):
        assert offered_to(offers, ring=Ring.ALL, edge=LUEBECK, reach={5: WHOLE_QUEUE, 6: reach}).version == version


def test_without_a_pace_nobody_in_ring_all_has_a_turn():
    assert offered_to([at(Place.ALL, 5)], ring=Ring.ALL, edge=LUEBECK, reach={}) is None


def test_the_queue_is_even_and_another_one_for_each_bundle():
    sites = [EdgeId(f"site-{number}") for number in range(2_000)]
    first, second = ([queue_place(site, digest) for site in sites] for digest in ("ab" * 32, "cd" * 32))
    assert all(0 <= place < WHOLE_QUEUE for place in first)
    assert 0.22 < sum(place < WHOLE_QUEUE // 4 for place in first) / len(sites) < 0.28
    assert first != second


def test_a_pace_survives_signed_metadata():
    pace = Pace(version=8, reach=2_500)
    assert Pace.from_custom(pace.target, pace.to_custom()) == pace


@pytest.mark.parametrize(
    ("name", "custom"),
    [
        ("pace/8.json", {"reach": -1}),
        ("pace/8.json", {"reach": 10_001}),
        ("pace/8.json", {"reach": True}),
        ("pace/8.json", {"reach": "all"}),
        ("pace/8.json", None),
        ("all/8.json", {"reach": 5}),
    ],
)
def test_a_pace_that_is_none_is_refused(name, custom):
    with pytest.raises(MalformedMessageError):
        Pace.from_custom(name, custom)
