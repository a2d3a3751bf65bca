"""Which ring this edge is in is decided by the offline key, and never by an older word of it."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.releases.ring import Rings
from protocol.errors import BadSignatureError, MalformedMessageError, RollbackError
from protocol.identity import EdgeId, FederationId
from protocol.release import Ring
from protocol.rings import RingPolicy

FEDERATION = FederationId("hanse")


@pytest.fixture
def key():
    return Ed25519PrivateKey.generate()


@pytest.fixture
def rings(tmp_path, key):
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust" / "roster.pub").write_text(key.public_key().public_bytes_raw().hex())
    return lambda: Rings(tmp_path, federation=FEDERATION, edge=EdgeId("visby"))


def policy(number, key, *, federation=FEDERATION, canary=(), early=()):
    return RingPolicy.of(federation, number, canary=canary, early=early).sign(key)


def test_without_a_policy_everybody_is_in_ring_all(rings):
    assert rings().policy() is None
    assert rings().ring() is Ring.ALL


def test_an_accepted_policy_survives_a_restart(rings, key):
    assert rings().accept(policy(3, key, canary=["luebeck"], early=["visby"])).number == 3
    assert rings().ring() is Ring.EARLY
    rings().accept(policy(4, key, canary=["visby"]))
    assert rings().ring() is Ring.CANARY


def test_an_older_policy_is_refused_and_the_same_is_harmless(rings, key):
    rings().accept(policy(3, key, canary=["visby"]))
    rings().accept(policy(3, key, canary=["visby"]))
    with pytest.raises(RollbackError):
        rings().accept(policy(2, key))
    assert rings().ring() is Ring.CANARY


def test_another_policy_of_the_same_number_changes_nothing(rings, key):
    rings().accept(policy(3, key, canary=["visby"]))
    rings().accept(policy(3, key))
    assert rings().ring() is Ring.CANARY


@pytest.mark.parametrize("forged", ["stranger", "other federation", "noise"])
def test_what_the_offline_key_did_not_sign_for_this_federation_is_refused(rings, key, forged):
    signed = {
        "stranger": policy(9, Ed25519PrivateKey.generate(), canary=["visby"]),
        "other federation": policy(9, key, federation=FederationId("rhein"), canary=["visby"]),
        "noise": b"{}",
    }[forged]
    with pytest.raises((BadSignatureError, MalformedMessageError)):
        rings().accept(signed)
    assert rings().ring() is Ring.ALL
