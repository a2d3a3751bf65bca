import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import errors
from protocol.masking import keystream
from protocol.secret_sharing import PRIME, SHARE_BYTES, Recombination, split

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "secret_sharing.json").read_text())
GOOD = [vector for vector in VECTORS if vector["expect"] == "secret"]
BAD = [vector for vector in VECTORS if vector["expect"] != "secret"]


def why(vector):
    return vector["why"]


def combine(numbers, shares):
    return Recombination.at(numbers).combine(shares)


@st.composite
def dealings(draw):
    """A secret, a threshold of 2 or more, and all shares in order."""
    shares = draw(st.integers(2, 12))
    threshold = draw(st.integers(2, shares))
    secret = draw(st.integers(0, PRIME - 1)).to_bytes(SHARE_BYTES, "little")
    seed = draw(st.integers(0, 2**32)).to_bytes(32, "little")  # drawn directly, coefficients would be mostly zero
    coefficients = keystream(seed, SHARE_BYTES * (threshold - 1))
    return secret, threshold, split(secret, threshold=threshold, shares=shares, coefficients=coefficients)


@pytest.mark.parametrize("vector", GOOD, ids=why)
def test_shares_make_up_what_an_independent_implementation_says(vector):
    shares = [bytes.fromhex(share) for share in vector["shares"]]
    assert combine(vector["numbers"], shares).hex() == vector["secret"]


@pytest.mark.parametrize("vector", [v for v in GOOD if "coefficients" in v], ids=why)
def test_a_secret_is_split_as_an_independent_implementation_does(vector):
    shares = split(
        bytes.fromhex(vector["secret"]),
        threshold=vector["threshold"],
        shares=len(vector["all_shares"]),
        coefficients=bytes.fromhex(vector["coefficients"]),
    )
    assert [share.hex() for share in shares] == vector["all_shares"]


@pytest.mark.parametrize("vector", BAD, ids=why)
def test_shares_that_nobody_dealt_are_refused(vector):
    expected = {"ValueError": ValueError, "MalformedMessageError": errors.MalformedMessageError}[vector["expect"]]
    with pytest.raises(expected):
        combine(vector["numbers"], [bytes.fromhex(share) for share in vector["shares"]])


def test_a_share_off_the_polynomial_does_not_give_the_secret():
    honest, lied = (next(v for v in GOOD if word in v["why"]) for word in ("3 of 5", "off the polynomial"))
    assert honest["numbers"] == lied["numbers"]
    assert honest["secret"] != lied["secret"]


@given(dealing=dealings(), data=st.data())
def test_any_threshold_of_edges_rebuilds_the_secret(dealing, data):
    secret, threshold, shares = dealing
    order = data.draw(st.permutations(range(1, len(shares) + 1)))
    numbers = order[: data.draw(st.integers(threshold, len(shares)))]
    assert combine(numbers, [shares[x - 1] for x in numbers]) == secret


@given(dealing=dealings(), data=st.data())
def test_one_edge_fewer_could_hold_the_shares_of_any_secret(dealing, data):
    """To t - 1 shares every secret fits: a last share can be found that completes them to it."""
    secret, threshold, shares = dealing
    numbers = data.draw(st.permutations(range(1, len(shares) + 1)))[:threshold]
    wanted = data.draw(st.integers(0, PRIME - 1))
    recombination = Recombination.at(numbers)
    held = [shares[x - 1] for x in numbers[:-1]]
    without = int.from_bytes(recombination.combine([*held, bytes(SHARE_BYTES)]), "little")
    last = (wanted - without) * pow(recombination.weights[-1], -1, PRIME) % PRIME
    assert recombination.combine([*held, last.to_bytes(SHARE_BYTES, "little")]) == wanted.to_bytes(
        SHARE_BYTES, "little"
    )
    assert combine(numbers[:-1], held) != secret


def test_one_set_of_edges_rebuilds_many_secrets():
    numbers, t, n = range(9, 43), 34, 50
    recombination = Recombination.at(numbers)
    for number in range(20):
        secret = bytes([number]) * SHARE_BYTES
        shares = split(secret, threshold=t, shares=n, coefficients=bytes([number + 100]) * SHARE_BYTES * (t - 1))
        assert recombination.combine([shares[x - 1] for x in numbers]) == secret


def test_shares_of_a_secret_look_like_any_numbers():
    """A share says nothing of the secret only if every coefficient is used."""
    secret = bytes(SHARE_BYTES)
    plain = split(secret, threshold=4, shares=4, coefficients=bytes(3 * SHARE_BYTES))
    assert plain == [secret] * 4
    for place in range(3):
        coefficients = bytearray(3 * SHARE_BYTES)
        coefficients[SHARE_BYTES * place] = 1
        shares = split(secret, threshold=4, shares=4, coefficients=bytes(coefficients))
        assert [int.from_bytes(share, "little") for share in shares] == [x ** (place + 1) for x in range(1, 5)]


@pytest.mark.parametrize("secret", [PRIME.to_bytes(32, "little"), b"\xff" * 32, bytes(31), bytes(33)])
def test_a_secret_that_would_not_come_back_is_refused(secret):
    with pytest.raises(ValueError, match="not a secret"):
        split(secret, threshold=2, shares=3, coefficients=bytes(32))


@pytest.mark.parametrize(("threshold", "shares"), [(0, 3), (4, 3), (-1, 3)])
def test_a_threshold_that_cannot_be_met_is_refused(threshold, shares):
    with pytest.raises(ValueError, match="shares"):
        split(bytes(32), threshold=threshold, shares=shares, coefficients=bytes(32 * max(threshold - 1, 0)))


@pytest.mark.parametrize("size", [0, 32, 63, 96])
def test_too_little_randomness_is_refused(size):
    with pytest.raises(ValueError, match="coefficients"):
        split(bytes(32), threshold=3, shares=5, coefficients=bytes(size))


def test_the_prime_is_prime():
    """Fermat to many bases; a composite would have shares without an inverse."""
    assert all(pow(base, PRIME - 1, PRIME) == 1 for base in range(2, 200))
    assert PRIME.bit_length() == 256


@pytest.mark.parametrize("numbers", [[], [1, PRIME + 1], [-1, 2]])
def test_numbers_outside_the_field_are_refused(numbers):
    with pytest.raises(ValueError, match="distinct"):
        Recombination.at(numbers)
