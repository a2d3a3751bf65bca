"""Whoever wants to be forgotten is forgotten by the next answer; whoever asks what is known of them is told it all."""

import json
import secrets

import pytest

from edge.api.app import build_app
from edge.audit import AuditLog
from edge.diary import Diary
from edge.erasing import Erasing
from edge.shop import Shop
from tests.edge.api.till import Till


@pytest.fixture
def till(make_service):
    return Till(make_service())


def visit(till, session, *items):
    till.send("/v1/events", {"events": [{"type": "view", "session": session, "item": item} for item in items]})


def recommend(till, **body):
    return till.send("/v1/recommendations", {"limit": 3, **body}).json()


def test_a_visitor_who_logs_in_is_known(till):
    visit(till, "s1", "i1", "i2")
    assert till.send("/v1/sessions/merge", {"session": "s1", "user": "eve"}).json() == {"moved": 2}
    assert till.send("/v1/sessions/merge", {"session": "s1", "user": "eve"}).json() == {"moved": 0}
    visit(till, "s1", "i3")
    assert till.store.history("eve", limit=9) == ["i1", "i2", "i3"]
    assert "unknown_user" not in recommend(till, user="eve")["reasons"]


def test_a_session_is_not_given_to_two_users(till):
    visit(till, "s1", "i1")
    till.send("/v1/sessions/merge", {"session": "s1", "user": "eve"})
    answer = till.send("/v1/sessions/merge", {"session": "s1", "user": "bob"})
    assert answer.status_code == 422
    assert "another user" in answer.json()["detail"]
    assert "eve" not in answer.text
    assert till.send("/v1/users/erase", {"session": "s1"}).status_code == 422


def test_a_deleted_user_is_gone_from_the_next_answer(till, stocked):
    assert "unknown_user" not in recommend(till, user="ada")["reasons"]
    bought = sum(stocked.popularity().values())
    answer = till.send("/v1/users/erase", {"user": "ada"}).json()
    assert answer == {"known": True, "events": 4, "clean": True}
    assert "unknown_user" in recommend(till, user="ada")["reasons"]
    assert till.send("/v1/users/erase", {"user": "ada"}).json() == {"known": False, "events": 0, "clean": True}
    assert sum(stocked.popularity().values()) == bought - 4


def test_nothing_in_memory_remembers_somebody_deleted(till):
    recommend(till, user="ada")
    recommend(till, user="u1")
    till.send("/v1/users/erase", {"user": "ada"})
    assert [query.user for query in till.service.recent] == ["u1"]


def test_a_new_event_of_somebody_deleted_begins_a_new_past(till):
    till.send("/v1/users/erase", {"user": "ada"})
    till.send("/v1/events", {"type": "view", "user": "ada", "item": "i9"})
    assert till.store.history("ada", limit=9) == ["i9"]


def test_the_audit_log_says_that_somebody_was_erased_and_not_who(make_service, tmp_path):
    service = make_service()
    diary = Diary(tmp_path)
    gone, beside = [], []
    erasing = Erasing(
        service=service,
        note=diary.note,
        derived=[lambda _db, events: gone.extend(events)],
        beside=[beside.append],
    )
    till = Till(service, build_app(Shop(service=service, erasing=erasing), api_keys=None))
    name = f"person-{secrets.token_hex(8)}"
    till.send("/v1/events", {"type": "view", "user": name, "item": "i1", "session": "s"})
    till.send("/v1/users/erase", {"user": name})
    till.send("/v1/users/erase", {"user": "nobody at all"})
    diary.close()
    log = AuditLog(tmp_path)
    (entry,) = log.entries()
    log.close()
    assert entry.kind == "somebody erased"
    assert dict(entry.facts) == {"events": 1, "clean": True}
    assert name.encode() not in (tmp_path / "audit.db").read_bytes()
    assert len(gone) == 1
    assert beside == [(name,), ("nobody at all",)]  # they may stand there and nowhere else


def test_an_export_is_all_that_is_known_and_can_be_sent_again(till):
    till.send("/v1/events", {"type": "search", "user": "ada", "query": "green tea", "session": "s2"})
    visit(till, "s1", "i1")
    till.send("/v1/sessions/merge", {"session": "s1", "user": "ada"})
    answer = till.send("/v1/users/export", {"user": "ada"})
    assert answer.headers["content-type"] == "application/x-ndjson"
    head, *events = [json.loads(line) for line in answer.text.splitlines()]
    assert head == {"user": "ada", "sessions": ["s1"]}
    assert [one["type"] for one in events] == ["purchase"] * 4 + ["search", "view"]
    again = till.send("/v1/events", {"events": events}).json()
    assert again == {"added": 0, "duplicates": 6}
    assert till.send("/v1/users/export", {"user": "nobody"}).text == '{"user":"nobody","sessions":[]}\n'


def test_an_export_of_many_pages_is_whole(till):
    events = [{"type": "view", "user": "eve", "item": "i1"}] * 2_345
    till.send("/v1/events", {"events": events})
    assert len(till.send("/v1/users/export", {"user": "eve"}).text.splitlines()) == 2_346


@pytest.mark.parametrize("path", ["/v1/users/erase", "/v1/users/export"])
@pytest.mark.parametrize("body", [{}, {"user": "a", "session": "b"}, {"user": None}, {"user": ""}, {"name": "a"}])
def test_it_must_be_clear_who_is_meant(till, path, body):
    answer = till.send(path, body)
    assert answer.status_code == 422
    assert till.store.event_count() == 14
