"""Who may ask for what, how often, and until when; at the file, at the door and at a running edge."""

import threading
import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import audit, cli
from edge.api.keys import FILE, ApiKey, ApiKeys, KeyFile, Permission, digest, new_secret
from edge.api.rate import TokenBucket
from edge.cli_keys import make
from protocol.errors import BadInputError

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ASKS = {
    Permission.QUERY: ("/v1/recommendations", {"user": "ada"}),
    Permission.INGEST: ("/v1/events", {"type": "view", "user": "ada", "item": "i1"}),
}


def a_key(secret="s", **parts):
    return ApiKey(**{"digest": digest(secret), "label": "till", "scopes": frozenset({Permission.QUERY}), **parts})


@pytest.fixture
def file(tmp_path):
    return KeyFile(tmp_path / FILE)


@given(
    scopes=st.frozensets(st.sampled_from(Permission), min_size=1),
    created=st.none() | st.just(NOW),
    expires=st.none() | st.just(NOW + timedelta(days=3)),
    rate=st.none() | st.floats(min_value=0.001, max_value=1e6),
    burst=st.integers(min_value=1, max_value=10**6),
    label=st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=64),
)
def test_what_is_written_of_a_key_is_read_back(**parts):
    key = a_key(**parts)
    assert ApiKey.from_line(key.to_line().decode()) == key


def test_keys_of_older_versions_stay_good_for_what_they_were_good_for(file, tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / FILE).write_text(f"{sha256(b'old').hexdigest()} till four\n\n{sha256(b'older').hexdigest()}\n")
    scopes = frozenset({Permission.QUERY, Permission.INGEST})
    assert [(key.label, key.scopes, key.rate) for key in file.read()] == [
        ("till four", scopes, None),
        ("unnamed", scopes, None),
    ]
    file.add(a_key())
    assert [key.label for key in file.read()] == ["till four", "unnamed", "till"]


@pytest.mark.parametrize(
    "line",
    [
        "nothing",
        "{}",
        "{",
        '{"sha256": 5}',
        "ab" * 31 + " short",
        a_key().to_line().decode().replace('"query"', '"everything"'),
        a_key().to_line().decode().replace('["query"]', "[]"),
        a_key().to_line().decode().replace('"burst":1', '"burst":0'),
        a_key().to_line().decode().replace('"rate":null', '"rate":-1'),
        a_key().to_line().decode().replace('"rate"', '"rates"'),
    ],
)
def test_a_line_that_is_no_key_is_named(file, tmp_path, line):
    (tmp_path / "keys").mkdir()
    (tmp_path / FILE).write_bytes(a_key().to_line() + line.encode() + b"\n")
    with pytest.raises(BadInputError, match="line 2"):
        file.read()


def test_the_file_holds_no_key_and_is_for_its_owner_alone(tmp_path):
    secret = make(tmp_path, "till", ["query"], created=NOW)
    written = (tmp_path / FILE).read_bytes()
    assert secret.encode() not in written
    assert digest(secret).hex().encode() in written
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0


def test_two_commands_at_once_lose_no_key(tmp_path):
    def command(number):
        return threading.Thread(target=make, args=(tmp_path, f"k{number}", ["query"]), kwargs={"created": NOW})

    commands = [command(number) for number in range(20)]
    for command in commands:
        command.start()
    for command in commands:
        command.join()
    assert len(KeyFile(tmp_path / FILE).read()) == 20


def test_a_label_names_one_key(file):
    file.add(a_key())
    with pytest.raises(BadInputError, match="already"):
        file.add(a_key("other"))
    with pytest.raises(BadInputError, match="no key tull"):
        file.revoke("tull")


def test_an_expired_key_is_none():
    clock = [NOW.timestamp()]
    keys = ApiKeys([a_key(expires=NOW + timedelta(seconds=1))], clock=lambda: clock[0])
    assert keys.find(b"s") is not None
    clock[0] += 1
    assert keys.find(b"s") is None


@pytest.mark.parametrize("secret", [b"", b"S", b"s ", b"s" * 2, b"\xff", b"s" * 100_000])
def test_only_the_key_itself_opens(secret):
    assert ApiKeys([a_key()]).find(secret) is None


def test_reading_the_file_again_gives_nobody_a_fresh_allowance(file):
    file.add(a_key(rate=0.001, burst=1))
    keys = ApiKeys(file.read(), file=file)
    assert keys.find(b"s").bucket.take(time.perf_counter()) == 0
    file.add(a_key("other", label="other"))
    keys.look_again()
    assert keys.find(b"other") is not None
    assert keys.find(b"s").bucket.take(time.perf_counter()) > 0


def test_a_file_that_was_broken_by_hand_leaves_the_keys_in_force(file, tmp_path):
    file.add(a_key())
    keys = ApiKeys(file.read(), file=file)
    (tmp_path / FILE).write_text("oh no\n")
    keys.look_again()
    assert keys.find(b"s") is not None
    (tmp_path / FILE).unlink()
    keys.look_again()
    assert keys.find(b"s") is None


def test_a_bucket_lets_through_its_burst_and_then_its_rate():
    bucket = TokenBucket(rate=2, burst=3, now=100)
    assert [bucket.take(100) for _ in range(4)] == [0, 0, 0, 0.5]
    assert bucket.take(100.4) == pytest.approx(0.1)
    assert [bucket.take(100.5), bucket.take(101)] == [0, 0]
    assert [bucket.take(1000) for _ in range(4)] == [0, 0, 0, 0.5]  # a long rest gives no more than the burst


@given(rate=st.floats(0.1, 100), burst=st.integers(1, 50), gaps=st.lists(st.floats(0, 2), max_size=200))
def test_nobody_gets_more_than_burst_and_rate(rate, burst, gaps):
    now, taken, bucket = 0.0, 0, TokenBucket(rate=rate, burst=burst, now=0)
    for gap in gaps:
        now += gap
        taken += bucket.take(now) == 0
    assert taken <= burst + now * rate + 1e-6


@pytest.mark.parametrize("scope", Permission)
def test_a_key_is_good_for_its_scope_and_nothing_else(start, scope):
    edge = start()
    secret = make(edge.folder, f"for {scope}", [scope], created=NOW)
    with edge.client(bearer(secret)) as shop:
        wait_until(lambda: shop.get("/metrics").status_code != 401)
        for needed, (path, body) in ASKS.items():
            answer = shop.post(path, json=body)
            assert answer.status_code == (200 if needed == scope else 403)
            assert needed == scope or f"needs an API key for {needed}" in answer.json()["detail"]


def test_making_and_revoking_a_key_counts_in_the_running_edge(start):
    edge = start()
    secret = make(edge.folder, "till-9", ["query"], created=NOW)
    with edge.client(bearer(secret)) as shop:
        wait_until(lambda: shop.get("/metrics").status_code == 200)
        edge.keys.revoke("till-9")
        wait_until(lambda: shop.get("/metrics").status_code == 401)
        assert shop.get("/metrics").headers["www-authenticate"] == "Bearer"


def test_who_asks_too_often_is_told_when_to_come_again(start):
    edge = start()
    secret = make(edge.folder, "poller", ["query"], created=NOW, rate=0.01, burst=3)
    with edge.client(bearer(secret)) as shop, edge.client() as other:
        path, body = ASKS[Permission.QUERY]
        wait_until(lambda: shop.post(path, json=body).status_code != 401)
        assert [shop.post(path, json=body).status_code for _ in range(3)] == [200, 200, 429]
        refused = shop.post(path, json=body)
        assert 90 <= int(refused.headers["retry-after"]) <= 100
        assert refused.headers["content-type"] == "application/problem+json"
        assert shop.get("/healthz").status_code == 200
        assert other.post(path, json=body).status_code == 200


def bearer(secret):
    return {"Authorization": f"Bearer {secret}"}


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def say(tmp_path, capsys):
    (tmp_path / "edge.toml").write_text("[site]\nname='a'\nfederation='f'\n")

    def say(*words):
        assert cli.main(["key", *words, "--dir", str(tmp_path)]) == 0
        return capsys.readouterr().out

    return say


def test_the_commands_make_list_and_revoke(say, file, tmp_path):
    out = say("new", "till-4", "--scope", "query", "--scope", "ingest", "--rate", "50", "--days", "30")
    [key] = file.read()
    assert key.digest == digest(out.split()[-1])
    assert (key.label, key.scopes, key.rate, key.burst) == ("till-4", {"query", "ingest"}, 50, 100)
    assert timedelta(days=29) < key.expires - datetime.now(UTC) <= timedelta(days=30)
    say("new", "desk", "--scope", "admin", "--operator")
    kept = (tmp_path / "keys" / "operator.key").read_text().strip()
    assert digest(kept) == file.read()[1].digest
    listed = say("list")
    assert "till-4" in listed
    assert "50, 100 at once" in listed
    assert key.digest.hex()[:8] not in say("list", "--json")
    say("revoke", "till-4")
    assert [key.label for key in file.read()] == ["desk"]


def test_who_may_ask_what_stands_in_the_audit_log_and_no_key_does(say, file, tmp_path):
    secret = say("new", "till-4", "--scope", "query", "--days", "30").split()[-1]
    say("new", "desk", "--scope", "admin")
    say("revoke", "till-4")
    made, second, revoked = audit.read(tmp_path)
    [left] = file.read()
    assert (made.kind, made.facts["label"], made.facts["scopes"]) == ("key made", "till-4", ["query"])
    assert made.facts["expires"] == f"{datetime.now(UTC) + timedelta(days=30):%Y-%m-%d}"
    assert second.facts == {"label": "desk", "scopes": ["admin"]}
    assert (revoked.kind, revoked.facts) == ("key revoked", {"label": "till-4"})
    written = (tmp_path / audit.FILE_NAME).read_bytes()
    assert b"till-4" in written
    assert secret.encode() not in written
    assert left.digest.hex().encode() not in written


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["new", "x", "--scope", "all"], "query, ingest or admin"),
        (["new", "x", "--rate", "0"], "rate"),
        (["new", "x", "--rate", "nan"], "rate"),
        (["new", "x", "--burst", "0"], "burst"),
        (["new", ""], "label"),
        (["new", "x" * 65], "label"),
        (["revoke", "x"], "no key x"),
    ],
)
@pytest.mark.usefixtures("say")
def test_a_key_that_cannot_be_is_one_line(file, capsys, tmp_path, words, why):
    assert cli.main(["key", *words, "--dir", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert why in said
    assert said.count("\n") == 1
    assert file.read() == []


def test_a_new_secret_is_long_enough_for_a_plain_hash():
    drawn = {new_secret() for _ in range(100)}
    assert len(drawn) == 100
    assert {len(secret) for secret in drawn} == {32}
