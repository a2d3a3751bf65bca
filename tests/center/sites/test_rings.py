"""Rings on the center's disk: signed offline, numbered, told to the audit log."""

from contextlib import closing

import pytest

from center import founding
from center.keys import CenterKeys
from center.registry import Registry
from center.sites import admission, rings
from edge.keys import Keys
from protocol.errors import BadInputError, BadSignatureError
from protocol.identity import EdgeId, FederationId
from protocol.release import Ring

HANSE = FederationId("hanse")
SITES = tuple(EdgeId(name) for name in ("bergen", "bruges", "riga", "visby"))


@pytest.fixture
def folder(tmp_path):
    from datetime import UTC, datetime

    folder = tmp_path / "center"
    addresses = founding.Addresses(host="127.0.0.1", gateway_port=1, superlink_port=2, broker_port=3)
    founding.found(folder, federation=HANSE, addresses=addresses, now=datetime.now(UTC))
    with closing(Registry(folder / "registry.db")) as registry:
        for site in SITES:
            registry.add_site(Keys.generate().member(site), certificate="pem", now_ms=1)
        admission.sign_roster(folder, federation=HANSE, registry=registry, offline=folder / "offline")
    return folder


def roster(folder):
    return admission.read_roster(folder, federation=HANSE, keys=CenterKeys.load(folder))


def choose(folder, canary, early=()):
    return rings.sign_rings(folder, federation=HANSE, roster=roster(folder), canary=canary, early=early)


def read(folder):
    return rings.read_rings(folder, federation=HANSE, keys=CenterKeys.load(folder))


def test_without_a_policy_everybody_is_in_ring_all(folder) -> None:
    assert read(folder) is None
    assert rings.members_by_ring(None, roster(folder)) == {Ring.ALL: SITES}
    assert rings.members_by_ring(None, None) == {Ring.ALL: ()}


def test_a_changed_policy_gets_the_next_number_and_the_same_one_keeps_its(folder) -> None:
    assert choose(folder, ["visby"], ["riga"]).number == 1
    assert choose(folder, ["visby"], ["riga"]).number == 1
    assert choose(folder, ["riga"]).number == 2
    members = rings.members_by_ring(read(folder), roster(folder))
    assert members == {Ring.CANARY: ("riga",), Ring.EARLY: (), Ring.ALL: ("bergen", "bruges", "visby")}
    with closing(Registry(folder / "registry.db")) as registry:
        told = [entry.facts for entry in registry.audit_log() if entry.kind == "rings signed"]
    assert [facts["number"] for facts in told] == [1, 2]


@pytest.mark.parametrize(
    ("canary", "early", "says"),
    [(["lund"], [], "no site lund is admitted"), (["visby"], ["visby"], "visby is named twice")],
)
def test_a_policy_that_cannot_be_is_refused_in_one_line(folder, canary, early, says) -> None:
    with pytest.raises(BadInputError, match=says):
        choose(folder, canary, early)
    assert read(folder) is None


def test_a_policy_that_somebody_else_signed_is_not_believed(folder) -> None:
    choose(folder, ["visby"])
    path = folder / rings.RINGS_FILE
    path.write_bytes(path.read_bytes().replace(b"visby", b"riga"))
    with pytest.raises(BadSignatureError):
        read(folder)
