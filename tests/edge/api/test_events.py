"""What shops send is in the books or refused in a clear line, and comes back as it was sent."""

import json

import orjson
import pytest

from edge.api.event_bodies import read_body
from edge.records.events import EventType
from tests.edge.api.till import Till


@pytest.fixture
def till(make_service):
    return Till(make_service())


def event(number, **rest):
    return {"event_id": f"n{number}", "type": "view", "user": "eve", "item": "i1", **rest}


def lines(*events):
    return b"".join(orjson.dumps(one) + b"\n" for one in events)


def test_a_visitor_needs_no_user(till):
    answer = till.send("/v1/events", {"type": "view", "session": "s1", "item": "i1"})
    assert answer.json() == {"added": 1, "duplicates": 0}
    assert len(till.store.past_of_session("s1", limit=9).item) == 1


def test_where_it_happened_is_kept(till):
    context = {"region": "Hamburg", "page": "home", "device": "kiosk", "campaign": "autumn"}
    till.send("/v1/events", event(1, context=context))
    assert till.store.events_after(0, 99)[-1].context == context


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"user": None}, "user is missing"),
        ({"user": ""}, "user"),
        ({"user": "x" * 257}, "user: String should have at most 256 characters"),
        ({"user": "a\x00b"}, "user: contains a control character"),
        ({"user": True}, "user"),
        ({"user": 2**62}, "user"),
        ({"item": None}, "item is missing"),
        ({"type": "stare"}, "type"),
        ({"type": None}, "type"),
        ({"time": "yesterday"}, "neither ISO 8601"),
        ({"time": "1999-01-01"}, "before the year 2000"),
        ({"time": 2_000_000_000_000}, "in the future"),
        ({"time": -(2**53)}, "time"),
        ({"time": 2**63}, "time"),
        ({"quantity": -1}, "quantity"),
        ({"quantity": None}, "quantity"),
        ({"query": "x" * 1001}, "query"),
        ({"context": {"mood": "good"}}, "context.mood"),
        ({"context": {"page": 7}}, "context.page"),
        ({"context": {"page": "x" * 257}}, "context.page"),
        ({"rec_id": "a\nb"}, "rec_id: contains a control character"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_cannot_be_believed_is_refused_and_nothing_is_written(till, change, complaint):
    before = till.store.event_count()
    for body, place in (
        ({**event(1), **change}, ""),
        ({"events": [event(2), {**event(3), **change}]}, "1"),
    ):
        answer = till.send("/v1/events", body)
        assert answer.status_code == 422, answer.text
        assert complaint.split(": ")[-1] in answer.json()["detail"]
        assert place in answer.json()["detail"]
    assert till.store.event_count() == before


def test_an_item_that_is_not_listed_is_refused_with_all_that_came_along(till):
    before = till.store.event_count()
    answer = till.send("/v1/events", {"events": [event(1), event(2, item="ghost")]})
    assert (answer.status_code, till.store.event_count()) == (422, before)
    assert "ghost is not listed" in answer.json()["detail"]


@pytest.mark.parametrize("text", [rb'"a\ud800b"', b'"\xed\xa0\x80"', b'"a\xff"', rb'"\u0000"'])
def test_text_that_is_none_is_refused(till, text):
    answer = till.send("/v1/events", content=b'{"type":"view","item":"i1","user":' + text + b"}")
    assert answer.status_code == 422


def test_whole_numbers_are_ids_too(till):
    till.send("/v1/events", {"events": [event(1, user=17, session=3), {**event(2), "event_id": 99, "user": "17"}]})
    assert till.store.history("17", limit=9) == ["i1", "i1"]
    assert till.send("/v1/events", {**event(2), "event_id": "99"}).json()["duplicates"] == 1


def test_every_way_to_write_a_time_is_the_same_time(till):
    times = [1_700_000_000, 1_700_000_000_000, "2023-11-14T22:13:20Z", "2023-11-14T23:13:20+01:00", "1700000000"]
    till.send("/v1/events", {"events": [event(n, time=time, user="fay") for n, time in enumerate(times)]})
    assert set(till.store.past("fay", limit=9).time_ms.tolist()) == {1_700_000_000_000}


def test_spaces_and_lines_around_several_events_are_nothing(till):
    text = json.dumps({"events": [event(1)]}, indent=4).encode()
    assert till.send("/v1/events", content=b"\n\n  " + text).json()["added"] == 1
    assert len(read_body(b' {\n\t"events" : [] }').columns) == 0


def test_what_was_sent_comes_back_and_can_be_sent_again(till):
    sent = [
        event(1, user="fay", session="s", time=1_700_000_000_000, quantity=2.0, rec_id="r1", context={"page": "home"}),
        {
            "event_id": "n2",
            "type": "search",
            "session": "s9",
            "time": 1_700_000_000_001,
            "quantity": 1.0,
            "query": "tea",
        },
    ]
    till.send("/v1/events", {"events": sent})
    back = till.send("/v1/events/read", {"user": "fay"}).json()["events"]
    back += till.send("/v1/events/read", {"session": "s9"}).json()["events"]
    assert back == sent
    assert till.send("/v1/events", {"events": back}).json() == {"added": 0, "duplicates": 2}


def test_a_cursor_stays_good_while_new_events_arrive(till):
    before = till.store.event_count()
    seen, after, more = [], None, True
    number = 0
    while more:
        answer = till.send("/v1/events/read", {"after": after, "limit": 3}).json()
        seen += [one["event_id"] for one in answer["events"]]
        after, more = answer["next"], answer["more"]
        if number < 5:
            number += 1
            till.send("/v1/events", event(number))
    assert len(seen) == len(set(seen)) == before + 5
    assert seen[-1] == "n5"
    assert till.send("/v1/events/read", {"after": after}).json() == {"events": [], "next": after, "more": False}


def test_pages_of_one_person_hold_all_kinds_in_order(till):
    kinds = [kind.value for kind in EventType] * 3
    till.send("/v1/events", {"events": [event(n, type=kind, user="fay") for n, kind in enumerate(kinds)]})
    seen, after = [], None
    for _ in range(8):
        answer = till.send("/v1/events/read", {"user": "fay", "after": after, "limit": 3}).json()
        seen += [one["type"] for one in answer["events"]]
        after = answer["next"]
    assert (seen, answer["more"]) == (kinds, False)


@pytest.mark.parametrize("cursor", ["", "x", "ZQ==", "aQAAAAAAAAAA", "ZQ" + "A" * 60, "é", "ZP__________"])
def test_a_made_up_cursor_is_refused(till, cursor):
    answer = till.send("/v1/events/read", {"after": cursor})
    assert answer.status_code == 422
    assert "cursor" in answer.json()["detail"]


def test_a_stream_is_written_line_by_line_and_says_what_it_refused(till):
    body = (
        lines(event(1), event(2), event(1))
        + b"\nnot json\n"
        + lines(event(3, item="ghost"), event(4, time=5), event(5))
    )
    answer = till.stream(body).json()
    assert (answer["added"], answer["duplicates"], answer["rejected"]) == (3, 1, 3)
    assert [reason["line"] for reason in answer["reasons"]] == [5, 6, 7]
    assert "ghost is not listed" in answer["reasons"][1]["reason"]
    assert till.store.history("eve", limit=9) == ["i1"] * 3


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
def test_a_stream_may_be_cut_into_pieces_anywhere(till, size):
    body = b"\xef\xbb\xbf" + lines(*(event(n) for n in range(40))).replace(b"\n", b"\r\n") + orjson.dumps(event(99))
    answer = till.stream(*(body[at : at + size] for at in range(0, len(body), size))).json()
    assert answer == {"added": 41, "duplicates": 0, "rejected": 0, "reasons": []}


def test_a_line_without_an_end_is_not_kept_in_memory(till):
    answer = till.stream(*[b"x" * 50_000] * 40, b"\n" + lines(event(1)), b'{"a":' * 20_000).json()
    assert (answer["added"], answer["rejected"]) == (1, 2)
    assert [reason["line"] for reason in answer["reasons"]] == [1, 3]


def test_reasons_have_an_end(till):
    answer = till.stream(b"oops\n" * 5_000).json()
    assert (answer["rejected"], len(answer["reasons"])) == (5_000, 20)


def test_a_stream_is_longer_than_any_body(till):
    def pieces():
        for start in range(0, 60_000, 500):
            yield lines(*(event(start + n, rec_id="r" * 250) for n in range(500)))

    answer = till.stream(*pieces())
    assert answer.json()["added"] == 60_000  # 19 MB


def test_a_full_disk_in_a_stream_says_how_far_it_came(till):
    pages = till.store._writer.execute("PRAGMA page_count").fetchone()[0]
    till.store._writer.execute(f"PRAGMA max_page_count={pages + 60}")
    before = till.store.event_count()
    answer = till.stream(*(lines(*(event(1000 * n + m, session="s" * 200) for m in range(500))) for n in range(9)))
    added = till.store.event_count() - before
    assert answer.status_code == 507
    assert added % 500 == 0
    assert 0 < added < 4_500
    assert f"{added} events up to line {added}" in answer.json()["detail"]
