"""Encodings: one message, one string of bytes; anything else is not one of our messages."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import binary, canonical
from protocol.errors import BadSignatureError, FederationError, MalformedMessageError
from protocol.identity import Label, sign_document
from protocol.messages import (
    Abandonment,
    MaskedUpdate,
    Survivors,
    SurvivorSignature,
    Unmasking,
    UnmaskRequest,
    sealed_share,
)

brief = settings(max_examples=40, deadline=None)  # the fuzzer of simulation.fuzzing has the time for more
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
CENTER = Ed25519PrivateKey.from_private_bytes(b"c" * 32)
digests = st.binary(min_size=32, max_size=32)
edges = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)
cohorts = st.lists(edges, max_size=5, unique=True).map(sorted).map(tuple)
signatures = st.binary(min_size=64, max_size=64)
sealed = st.lists(st.binary(min_size=48, max_size=48), max_size=3).map(tuple)


@st.composite
def updates(draw) -> bytes:
    n = draw(st.integers(0, 4))
    return MaskedUpdate.signed(
        announcement=draw(digests),
        edge=draw(edges),
        packed=draw(st.binary(max_size=40)),
        commitments=draw(st.lists(digests, min_size=n, max_size=n)),
        sealed=draw(st.binary(min_size=1, max_size=1)) * (max(n - 1, 0) * n * 48),
        key=KEY,
    ).to_bytes()


survivor_sets = st.builds(Survivors, announcement=digests, edges=cohorts)
MESSAGES = {
    MaskedUpdate: updates(),
    SurvivorSignature: st.builds(
        lambda named, edge: SurvivorSignature.signed(named, edge=edge, key=KEY).to_bytes(), survivor_sets, edges
    ),
    UnmaskRequest: st.builds(
        lambda signed, shares: UnmaskRequest(signatures=signed, sealed=shares).to_bytes(),
        st.dictionaries(edges, signatures, max_size=3),
        st.dictionaries(edges, sealed, max_size=3),
    ),
    Unmasking: st.builds(
        lambda announcement, edge, survivors, shares: Unmasking.signed(
            announcement=announcement, edge=edge, survivors=survivors, shares=shares, key=KEY
        ).to_bytes(),
        digests,
        edges,
        digests,
        st.lists(digests, max_size=4),
    ),
    Abandonment: st.builds(
        lambda announcement, edge: Abandonment.signed(announcement, edge=edge, key=KEY).to_bytes(), digests, edges
    ),
}
every_kind = pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)


@every_kind
@brief
@given(data=st.data())
def test_what_was_written_reads_back_the_same(kind, data) -> None:
    written = data.draw(MESSAGES[kind])
    assert kind.from_bytes(written).to_bytes() == written


@every_kind
@brief
@given(data=st.data())
def test_a_truncated_message_is_malformed(kind, data) -> None:
    written = data.draw(MESSAGES[kind])
    with pytest.raises(MalformedMessageError):
        kind.from_bytes(written[: data.draw(st.integers(0, len(written) - 1))])


@every_kind
@brief
@given(data=st.data())
def test_an_over_long_message_is_malformed(kind, data) -> None:
    written = data.draw(MESSAGES[kind]) + data.draw(st.binary(min_size=1, max_size=100))
    with pytest.raises(MalformedMessageError):
        kind.from_bytes(written)


@every_kind
@brief
@given(data=st.data())
def test_changed_bytes_are_another_message_or_none(kind, data) -> None:
    """Never the same message from other bytes: that is what a signature over bytes means."""
    written = bytearray(data.draw(MESSAGES[kind]))
    for at in data.draw(st.lists(st.integers(0, len(written) - 1), min_size=1, max_size=3)):
        written[at] = data.draw(st.integers(0, 255))
    try:
        read = kind.from_bytes(bytes(written))
    except MalformedMessageError:
        return
    assert read.to_bytes() == written


@every_kind
@brief
@given(noise=st.binary(max_size=200))
def test_noise_is_refused(kind, noise) -> None:
    with pytest.raises(MalformedMessageError):
        kind.from_bytes(noise)


@every_kind
@brief
@given(data=st.data())
def test_one_kind_of_message_is_no_other(kind, data) -> None:
    for other in MESSAGES:
        if other is not kind:
            with pytest.raises(MalformedMessageError, match="not a message"):
                other.from_bytes(data.draw(MESSAGES[kind]))


@pytest.mark.parametrize("kind", [MaskedUpdate, Unmasking, Abandonment, SurvivorSignature])
@brief
@given(data=st.data())
def test_no_byte_of_a_signed_message_may_change(kind, data) -> None:
    written = bytearray(data.draw(MESSAGES[kind]))
    kind.from_bytes(bytes(written)).check(KEY.public_key())
    at = data.draw(st.integers(0, len(written) - 1))
    written[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((MalformedMessageError, BadSignatureError)):
        kind.from_bytes(bytes(written)).check(KEY.public_key())


def test_a_count_larger_than_the_message_costs_nothing() -> None:
    """Four thousand million entries announced, none there: refused at the first."""
    lying = [
        b"HUQ1" + b"\xff" * 4,
        b"HPS1" + b"\xff" * 4,
        b"HUN1" + bytes(32) + b"\1a" + bytes(32) + b"\xff" * 4,
        b"HMU2" + bytes(32) + b"\1a" + bytes(4) + b"\xff" * 4,
    ]
    for data, read in zip(
        lying, (UnmaskRequest.from_bytes, binary.split, Unmasking.from_bytes, MaskedUpdate.from_bytes), strict=True
    ):
        with pytest.raises(MalformedMessageError, match="cut short"):
            read(data)


def test_a_request_names_each_edge_once_and_in_order() -> None:
    entry = {name: bytes([len(name)]) + name + bytes(64) for name in (b"bergen", b"visby")}
    for listed in ((b"visby", b"bergen"), (b"bergen", b"bergen")):
        body = b"HUQ1" + (2).to_bytes(4, "little") + b"".join(entry[name] for name in listed) + bytes(4)
        with pytest.raises(MalformedMessageError, match="sorted, each once"):
            UnmaskRequest.from_bytes(body)


@pytest.mark.parametrize("name", [b"", b"Visby", b"-a", b"\xff", b"a b", b"a" * 64])
def test_a_message_names_an_edge_or_is_none(name) -> None:
    with pytest.raises(MalformedMessageError, match="names no edge"):
        Abandonment.from_bytes(b"HAB1" + bytes(32) + bytes([len(name)]) + name + bytes(64))


@brief
@given(named=survivor_sets)
def test_a_survivor_set_reads_back_the_same(named) -> None:
    signed = named.sign(CENTER)
    assert Survivors.open(signed, key=CENTER.public_key()) == named
    assert Survivors.open(signed, key=CENTER.public_key()).sign(CENTER) == signed


@pytest.mark.parametrize(
    "content",
    [
        {"announcement": "00" * 32, "survivors": ["visby", "bergen"]},
        {"announcement": "00" * 32, "survivors": ["bergen", "bergen"]},
        {"announcement": "00" * 31, "survivors": ["bergen"]},
        {"announcement": "AB" * 32, "survivors": ["bergen"]},
        {"announcement": " " + "00" * 32, "survivors": ["bergen"]},
        {"announcement": "zz" * 32, "survivors": ["bergen"]},
        {"announcement": "00" * 32, "survivors": [7]},
        {"announcement": "00" * 32, "survivors": ["Bergen"]},
        {"announcement": "00" * 32, "survivors": "bergen"},
        {"announcement": "00" * 32, "survivors": [], "more": 1},
        {"announcement": "00" * 32},
        [],
    ],
    ids=str,
)
def test_a_survivor_set_has_one_form(content) -> None:
    """Signed by the center itself: a signature makes nothing canonical."""
    with pytest.raises(MalformedMessageError):
        Survivors.open(sign_document(Label.SURVIVORS, content, key=CENTER), key=CENTER.public_key())


def test_a_survivor_set_is_named_by_its_edges() -> None:
    one = Survivors(announcement=bytes(32), edges=("bergen", "visby"))
    assert one.digest() != replace(one, edges=("bergen", "turku")).digest()


def test_the_share_of_each_dealer_receiver_and_secret_stands_in_its_place() -> None:
    """Place by place, as another implementation would read it."""
    n = 4
    for dealer in range(n):
        receivers = [place for place in range(n) if place != dealer]
        body = b"".join(bytes([receiver, secret]) * 24 for receiver in receivers for secret in range(n))
        for receiver in receivers:
            for secret in range(n):
                share = sealed_share(body, edges=n, dealer=dealer, receiver=receiver, secret=secret)
                assert share == bytes([receiver, secret]) * 24


@brief
@given(papers=st.lists(st.binary(max_size=50), max_size=5))
def test_papers_that_were_joined_come_apart_again(papers) -> None:
    joined = binary.join(papers)
    assert binary.split(joined) == papers
    with pytest.raises(MalformedMessageError):
        binary.split(joined + b"\0")
    with pytest.raises(MalformedMessageError):
        binary.split(joined[:-1])


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(1 - 2**53, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@brief
@given(value=json_values)
def test_json_reads_back_the_same(value) -> None:
    try:
        data = canonical.encode(value)
    except MalformedMessageError:
        return  # half a surrogate pair is text for Python, but not for JSON
    assert canonical.encode(canonical.decode(data)) == data


@brief
@given(data=st.binary(max_size=60) | st.text('[]{}",:0123456789.eE+-truefalsn \\u', max_size=40).map(str.encode))
def test_json_has_one_form_whatever_comes(data) -> None:
    try:
        value = canonical.decode(data)
    except MalformedMessageError:
        return
    assert canonical.encode(value) == data


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_json_nested_too_deep_is_malformed(opening) -> None:
    """Not a crash: every document is decoded before its signature is checked."""
    closing = b"]" if opening == b"[" else b"}"
    for depth in [*range(700, 1100), 100_000]:
        try:
            canonical.decode(opening * depth + b"null" + closing * depth)
        except FederationError:
            continue


@pytest.mark.parametrize("write", [str.upper, lambda text: f" {text}", lambda text: f"{text[:2]} {text[2:]}"])
def test_a_signed_document_has_one_form(write) -> None:
    """A prekey is named by the digest of its signed bytes: written in two ways it would have two names."""
    document = canonical.decode(Survivors(announcement=bytes(32), edges=()).sign(CENTER))
    document["signature"] = write(document["signature"])
    with pytest.raises(MalformedMessageError):
        Survivors.open(canonical.encode(document), key=CENTER.public_key())
