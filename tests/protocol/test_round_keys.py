"""Derivations of a round: every input counts, and nothing derived serves two ends."""

from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from protocol import round_keys
from protocol.errors import UntrustedError
from protocol.round_keys import Use

A, B = bytes(32), b"b" * 32
SECRET = b"s" * 32
SHARE = b"share" + bytes(27)


def about(**changes) -> bytes:
    told = {"announcement": A, "dealer": "bergen", "receiver": "visby", "secret": "bergen"}
    return round_keys.about(**{**told, **changes})


def test_no_two_purposes_share_a_key() -> None:
    derived = [round_keys.mask_seed(SECRET, announcement=digest) for digest in (A, B)]
    derived += [round_keys.own(SECRET, use, announcement=digest) for use in Use for digest in (A, B)]
    derived += [
        round_keys.sealing_key(SECRET, announcement=digest, dealer=dealer, receiver=receiver)
        for digest in (A, B)
        for dealer, receiver in (("bergen", "visby"), ("visby", "bergen"), ("bergen", "turku"))
    ]
    assert len(set(derived)) == len(derived) == 16


def test_a_mask_seed_is_the_hkdf_that_the_specification_says() -> None:
    info = b"hanse/1 round mask\x00" + A
    assert round_keys.mask_seed(SECRET, announcement=A) == HKDFExpand(SHA256(), 32, info).derive(SECRET)


def test_a_sealed_share_opens_as_what_it_is() -> None:
    sealed = round_keys.seal_share(SHARE, key=SECRET, about=about(), secret=3)
    assert len(sealed) == 48
    assert round_keys.open_share(sealed, key=SECRET, about=about(), secret=3) == SHARE


@pytest.mark.parametrize(
    "change",
    [{"announcement": B}, {"dealer": "turku"}, {"receiver": "turku"}, {"secret": "turku"}],
    ids=lambda change: next(iter(change)),
)
def test_a_sealed_share_opens_as_nothing_else(change) -> None:
    sealed = round_keys.seal_share(SHARE, key=SECRET, about=about(), secret=3)
    with pytest.raises(UntrustedError, match="not what it is said to be"):
        round_keys.open_share(sealed, key=SECRET, about=about(**change), secret=3)
    with pytest.raises(UntrustedError):
        round_keys.open_share(sealed, key=SECRET, about=about(), secret=4)


def test_own_and_pair_are_told_apart_even_for_one_name() -> None:
    assert b'"own"' in about()
    assert b'"pair"' in about(secret="turku")


def test_a_commitment_is_to_one_seed_of_one_round_and_mask() -> None:
    fixed = round_keys.commitment(SECRET, announcement=A, edges=("bergen", "visby"))
    others = [
        round_keys.commitment(B, announcement=A, edges=("bergen", "visby")),
        round_keys.commitment(SECRET, announcement=B, edges=("bergen", "visby")),
        round_keys.commitment(SECRET, announcement=A, edges=("bergen",)),
    ]
    assert fixed not in others
    assert fixed == sha256(b"hanse/1 commitment\x00" + A + b'["bergen","visby"]\x00' + SECRET).digest()
