"""The announcement: everything a round depends on, told in one way only."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol import canonical
from protocol.announcement import Announcement, Purpose
from protocol.errors import BadSignatureError, FederationError, MalformedMessageError
from protocol.fixed_point import Segment
from protocol.identity import Label, sign_document
from protocol.privacy import Privacy


def changed(world, **fields):
    """The center signs an announcement that has these fields."""
    content = {**world.announcement().to_json(), **fields}
    return Announcement.open(
        sign_document(Label.ANNOUNCEMENT, content, key=world.center), key=world.center.public_key()
    )


def test_an_announcement_means_the_same_at_both_ends(world) -> None:
    """Whole numbers given by a settings file must not be written in two ways: the digests would differ."""
    given = world.announcement(
        clip=4,
        coordinate_clip=1,
        layout=(Segment(name="x", length=2, bound=3),),
        training={"epochs": 2},
        privacy=Privacy(noise_multiplier=1, user_clip=2, colluders=1),
    )
    opened = Announcement.open(given.sign(world.center), key=world.center.public_key())
    assert opened.digest() == given.digest()
    assert opened == given


def test_every_field_of_an_announcement_is_in_its_digest(world) -> None:
    """What an edge is told and what it masks for cannot differ in anything."""
    asked = world.announcement()
    others = {
        "federation": "other",
        "campaign": "autumn",
        "round": 8,
        "key_epoch": 5,
        "roster_version": 4,
        "center_epoch": 2,
        "cohort": asked.cohort[:4],
        "prekeys": asked.prekeys[::-1],
        "purpose": Purpose.POPULARITY,
        "submodel": "search",
        "weights_sha256": b"w" * 32,
        "window": 1,
        "layout": asked.layout[::-1],
        "clip": 3.0,
        "coordinate_clip": 3.0,
        "weight_cap": 99,
        "deadline_ms": 1,
        "privacy": Privacy(noise_multiplier=1.0, user_clip=1.0, colluders=1),
        "training": {"epochs": 1.0},
    }
    assert set(others) == set(asked.to_json())
    digests = {replace(asked, **{field: other}).digest() for field, other in others.items()} | {asked.digest()}
    assert len(digests) == len(others) + 1


def test_an_announcement_of_another_center_is_refused(world) -> None:
    forged = world.announcement().sign(Ed25519PrivateKey.from_private_bytes(b"x" * 32))
    with pytest.raises(BadSignatureError):
        Announcement.open(forged, key=world.center.public_key())


def test_a_signature_given_for_something_else_is_none(world) -> None:
    signed = sign_document(Label.SURVIVORS, world.announcement().to_json(), key=world.center)
    with pytest.raises(BadSignatureError):
        Announcement.open(signed, key=world.center.public_key())


SEGMENT = {"name": "update", "length": 40, "bound": 4.0, "bits": 20}
PRIVACY = {"noise_multiplier": 1.0, "user_clip": 1.0, "colluders": 1}


@pytest.mark.parametrize(
    "fields",
    [
        {"cohort": ["bruges", "bergen", "danzig", "kampen", "luebeck"]},
        {"cohort": ["bergen", "bergen", "danzig", "kampen", "luebeck"]},
        {"cohort": ["bergen"]},
        {"cohort": ["bergen", "bruges", "danzig", "kampen", "Luebeck"]},
        {"cohort": ["bergen", "bruges", "danzig", "kampen", 7]},
        {"cohort": [f"e{i:03}" for i in range(201)], "prekeys": ["00" * 32] * 201},
        {"prekeys": ["00" * 32] * 4},
        {"prekeys": ["00" * 31] * 5},
        {"prekeys": ["AB" * 32] * 5},
        {"prekeys": [" " + "00" * 32] * 5},
        {"purpose": "spy"},
        {"weights_sha256": "00" * 31},
        {"weights_sha256": "AB" * 32},
        {"weights_sha256": "zz"},
        {"layout": []},
        {"layout": [SEGMENT, SEGMENT]},
        {"layout": [{**SEGMENT, "length": 0}]},
        {"layout": [{**SEGMENT, "length": 2**29}]},
        {"layout": [{**SEGMENT, "bound": -1.0}]},
        {"layout": [{**SEGMENT, "bound": 4}]},
        {"layout": [{**SEGMENT, "bits": 7}]},
        {"layout": [{**SEGMENT, "bits": 33}]},
        {"layout": [{**SEGMENT, "more": 1}]},
        {"layout": ["update"]},
        {"round": 0},
        {"round": -1},
        {"round": True},
        {"round": 7.0},
        {"round": "7"},
        {"round": 10**400},
        {"key_epoch": 0},
        {"window": -1},
        {"clip": 0.0},
        {"clip": -1.0},
        {"clip": 4},
        {"coordinate_clip": 0.0},
        {"weight_cap": 0},
        {"weight_cap": 10**400},
        {"deadline_ms": None},
        {"training": {"epochs": 1}},
        {"training": {"epochs": "1.0"}},
        {"training": []},
        {"privacy": {}},
        {"privacy": {**PRIVACY, "noise_multiplier": 0.0}},
        {"privacy": {**PRIVACY, "user_clip": 1}},
        {"privacy": {**PRIVACY, "colluders": -1}},
        {"privacy": {**PRIVACY, "colluders": True}},
        {"privacy": {**PRIVACY, "more": 1}},
        {"federation": None},
        {"more": 1},
    ],
    ids=lambda fields: str(fields)[:60],
)
def test_an_announcement_has_one_form(world, fields) -> None:
    """Signed by the center itself: a signature makes nothing canonical."""
    changed(world)
    with pytest.raises(MalformedMessageError):
        changed(world, **fields)


@pytest.mark.parametrize("field", ["round", "prekeys", "privacy", "window", "training"])
def test_an_announcement_without_a_field_is_none(world, field) -> None:
    content = world.announcement().to_json()
    del content[field]
    signed = sign_document(Label.ANNOUNCEMENT, content, key=world.center)
    with pytest.raises(MalformedMessageError, match="other fields"):
        Announcement.open(signed, key=world.center.public_key())


@pytest.mark.parametrize("field", ["round", "center_epoch", "roster_version", "key_epoch", "window", "deadline_ms"])
def test_a_number_that_a_database_cannot_hold_is_no_number(world, field) -> None:
    """Or an edge would notice only while it writes the number down."""
    with pytest.raises(MalformedMessageError):
        changed(world, **{field: 2**64})


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_truncated_announcement_is_malformed(world, cut) -> None:
    with pytest.raises(MalformedMessageError):
        Announcement.open(world.announcement().sign(world.center)[:cut], key=world.center.public_key())


def test_spaces_are_not_part_of_an_announcement(world) -> None:
    signed = world.announcement().sign(world.center)
    for data in (
        signed + b" ",
        signed.replace(b":", b": ", 1),
        b"\xef\xbb\xbf" + signed,
        signed.decode().encode("utf-16"),
    ):
        with pytest.raises(MalformedMessageError):
            Announcement.open(data, key=world.center.public_key())


def test_a_field_given_twice_is_refused(world) -> None:
    signed = world.announcement().sign(world.center)
    with pytest.raises(FederationError):
        Announcement.open(signed.replace(b'"round":7', b'"round":7,"round":8'), key=world.center.public_key())
    assert canonical.decode(signed)["content"]["round"] == 7
