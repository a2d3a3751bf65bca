"""The short way and the long way of reading events are the same way."""

import json
from dataclasses import fields

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edge.api.event_bodies import read_body, read_event, to_batch
from edge.api.event_columns import Columns, plain_json
from edge.records.batch import Batch
from protocol.errors import BadInputError

NOW = 1_795_000_000_000
PLAIN = {"type": "view", "user": "ada", "item": "tea", "event_id": "e1", "time": NOW - 5, "session": "s"}

texts = st.one_of(
    st.text(max_size=5),
    st.sampled_from(["", "x" * 256, "x" * 257, "a\x00", "a\x7f", "\x85", "\u2028", "tab\t", "ß", "日本", "😀", "ada"]),
)
numbers = st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
anything = st.one_of(texts, numbers, st.none(), st.lists(texts, max_size=2), st.dictionaries(texts, texts, max_size=2))
contexts = st.dictionaries(st.sampled_from(["region", "page", "device", "campaign", "mood"]), anything, max_size=3)
times = st.sampled_from([None, NOW, NOW - 1, NOW // 1000, 0, -5, 2**53, 2**63, "2026-01-01", "soon", "1700000000", 1.5])


@st.composite
def events(draw):
    event = dict(PLAIN)
    for name in draw(
        st.lists(st.sampled_from([*PLAIN, "quantity", "query", "context", "rec_id", "colour"]), max_size=3)
    ):
        if draw(st.booleans()):
            event.pop(name, None)
        else:
            special = {"time": times, "context": contexts, "type": st.sampled_from(["search", "rating", "stare", None])}
            event[name] = draw(st.one_of(special.get(name, texts), anything))
    return event


def columns_of(batch):
    size = len(batch)
    nothing = {"quantities": [1.0] * size}
    return {
        field.name: list(getattr(batch, field.name) or nothing.get(field.name, [None] * size))
        for field in fields(Batch)
    }


def batch_of(columns):
    try:
        return columns_of(to_batch(columns, now_ms=NOW, spare_id=lambda: "spare", place="{}: "))
    except BadInputError as error:
        return error.line()


@settings(max_examples=600, deadline=None)
@given(st.lists(events(), min_size=1, max_size=4))
@example([{**PLAIN, "user": "a\x7f"}])
@example([{**PLAIN, "user": "x" * 257}])
@example([{**PLAIN, "user": None, "session": ""}])
@example([{**PLAIN, "query": "x" * 1001}])
@example([{**PLAIN, "time": "2026-01-01" + " " * 60}])
@example([{**PLAIN, "time": 2**63}])
@example([{**PLAIN, "time": -(2**53) - 1}, {**PLAIN, "time": None}])
@example([{**PLAIN, "context": {"page": "x" * 257}}])
@example([{**PLAIN, "context": {"mood": "good"}}])
@example([{**PLAIN, "query": None}, {**PLAIN, "query": ""}])
def test_what_is_plainly_in_order_is_in_order_and_means_the_same(given_events):
    raw = json.dumps(given_events, ensure_ascii=False).encode()
    short = Columns.plain(plain_json(raw))
    if short is not None:
        long = Columns.of([read_event(json.dumps(event).encode()) for event in given_events])
        assert batch_of(short) == batch_of(long)


@pytest.mark.parametrize(
    "change",
    [{}, {"query": "tea"}, {"context": {"page": "home"}}, {"quantity": 2}, {"time": "2026-01-01"}, {"rec_id": "r"}],
)
def test_usual_events_go_the_short_way(change):
    assert Columns.plain(plain_json(orjson.dumps([{**PLAIN, **change}, {**PLAIN, **change}]))) is not None


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"3", b"null", b"{", b'{"events":[1]}', b'{"events":{}}', b'{"events":[[]]}']
)
def test_what_is_no_event_is_refused(body):
    with pytest.raises(ValidationError):
        read_body(body)


def test_too_many_events_are_refused():
    with pytest.raises(ValidationError):
        read_body(orjson.dumps({"events": [PLAIN] * 10_001}))


@given(st.binary(max_size=60))
def test_noise_is_refused(body):
    with pytest.raises(ValidationError):
        read_body(body)
