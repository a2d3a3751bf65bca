"""Clients that dawdle, stuff and shove, at real sockets."""

import contextlib
import json
import select
import time

import pytest

GET = "GET /healthz HTTP/1.1"
JSON = "Content-Type: application/json"
QUICK = {"head_seconds": 0.4, "body_seconds": 0.4, "idle_seconds": 0.4}


def key(edge):
    return f"Authorization: {edge.headers['Authorization']}"


def is_problem(answer, status):
    found, headers, body = answer
    return found == status == json.loads(body)["status"] and headers["content-type"] == "application/problem+json"


def test_a_client_that_never_says_a_word_is_let_go(start):
    with start(**QUICK).line() as line:
        assert line.closed()


def test_a_head_that_comes_byte_by_byte_is_cut_off(start):
    edge = start(**QUICK)
    with edge.line() as line:
        line.send(b"GET /healthz HTTP/1.1\r\nX: ")
        while not select.select([line.socket], [], [], 0.05)[0]:
            line.send(b"x")
        assert is_problem(line.answer(), 408)
    assert edge.alive()


def test_a_body_that_does_not_come_is_not_waited_for(start):
    edge = start(**QUICK)
    with edge.line() as line:
        line.ask("POST /v1/events HTTP/1.1", b"", key(edge), "Content-Length: 1000", JSON)
        line.send(b'{"type": "view",')
        assert is_problem(line.answer(), 408)
        assert line.closed()


def test_a_slow_line_that_keeps_sending_is_heard_to_the_end(start):
    edge = start(body_seconds=1.5)
    body = json.dumps({"events": [{"type": "view", "user": "ada", "item": "i1"}] * 400}).encode()
    pieces = [body[begin : begin + 2_000] for begin in range(0, len(body), 2_000)]
    with edge.line() as line:
        line.ask("POST /v1/events HTTP/1.1", b"", key(edge), f"Content-Length: {len(body)}", JSON)
        began = time.monotonic()
        for number, piece in enumerate(pieces, start=1):
            line.send(piece)
            while time.monotonic() - began < 2.5 * number / len(pieces):  # the rest of this piece's share of the time
                select.select([line.socket], [], [], 0.01)
        assert line.answer()[0] == 200


def test_an_idle_connection_is_closed_and_not_before(start):
    with start(**QUICK).line() as line:
        for _ in range(3):
            line.ask(GET)
            assert line.answer()[0] == 200
        assert line.closed()


def test_who_does_not_read_the_answers_is_let_go(start):
    edge = start(**QUICK)
    before = edge.sockets()
    with edge.line() as line:
        with contextlib.suppress(OSError):
            line.socket.settimeout(1)
            for _ in range(2_000):
                line.ask("GET /openapi.json HTTP/1.1")
        wait_until(lambda: edge.sockets() == before)
    assert edge.alive()


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_many_silent_connections_keep_nobody_out(start):
    edge = start(max_connections=20, head_seconds=600, idle_seconds=600)
    with contextlib.ExitStack() as held:
        lines = [held.enter_context(edge.line()) for _ in range(100)]
        for line in lines:
            line.send(b"GET /healthz HTTP/1.1\r\nX: ")
        assert edge.alive()
        assert edge.sockets() < 40


@pytest.mark.parametrize(
    "junk", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 100]
)
def test_what_is_no_http_gets_a_problem(start, junk):
    edge = start()
    with edge.line() as line:
        line.send(junk)
        assert is_problem(line.answer(), 400)
        assert line.closed()
    assert edge.alive()


@pytest.mark.parametrize(
    "heads",
    [
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Content-Length: -1"],
        ["Content-Length: 5x"],
        ["Content-Length: 5", *(f"X-{number}: 1" for number in range(500))],
    ],
)
def test_a_head_that_is_too_much_or_can_be_read_in_two_ways_is_refused(start, heads):
    with start().line() as line:
        line.send("\r\n".join(["POST /v1/events HTTP/1.1", "Host: x", *heads, "", "hello"]).encode())
        assert is_problem(line.answer(), 400)
        assert line.closed()


@pytest.mark.parametrize("before", [b"GET /healthz HTTP/1.1\r\nX: ", b"GET /", b"chunks"])
def test_a_head_without_an_end_is_not_kept(start, before):
    edge = start()
    if before == b"chunks":  # what stands behind the last chunk is a head, too
        before = b"POST /v1/events HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: "
    memory = edge.memory()
    with edge.line() as line:
        sent = 0
        with contextlib.suppress(ConnectionError):
            line.send(before)
            while not select.select([line.socket], [], [], 0)[0] and sent < 50 << 20:
                line.send(b"x" * (1 << 16))
                sent += 1 << 16
        assert sent < 20 << 20
        assert line.closed()
    assert edge.memory() - memory < 20 << 20
    assert edge.alive()


def test_requests_one_after_the_other_without_waiting_are_answered_in_order(start):
    with start().line() as line:
        line.send(b"".join(f"GET {path} HTTP/1.1\r\n\r\n".encode() for path in ["/healthz", "/x", "/readyz"] * 10))
        assert [line.answer()[0] for _ in range(30)] == [200, 401, 200] * 10


def test_a_flood_of_requests_in_one_line_harms_nobody(start):
    edge = start()
    with edge.line() as line, contextlib.suppress(ConnectionError):
        line.send(b"GET /healthz HTTP/1.1\r\n\r\n" * 20_000)
        assert line.closed()
    assert edge.alive()


def test_who_asks_for_another_protocol_is_answered_in_this_one(start):
    edge = start(**QUICK)
    with edge.line() as line:
        line.ask(
            GET, b"", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"
        )
        assert line.answer()[0] == 200
        assert line.closed()
    assert (edge.folder / "log").read_bytes() == b""


def test_the_rest_of_a_body_that_nobody_wants_spoils_no_connection(start):
    edge = start()
    with edge.line() as line:
        line.ask("POST /v1/events HTTP/1.1", b"", "Content-Length: 1000")
        assert line.answer()[0] == 401
        line.send(b"x" * 1000)
        line.ask(GET)
        assert line.answer()[0] == 200


def test_a_crowd_is_thinned_out_at_once_and_health_is_told_all_the_while(start):
    edge = start(query_wait_seconds=0.001)
    body = b'{"user": "ada"}'
    with contextlib.ExitStack() as held:
        lines = [held.enter_context(edge.line()) for _ in range(200)]
        for line in lines:
            line.ask("POST /v1/recommendations HTTP/1.1", body, key(edge), JSON)
        assert edge.alive()
        answers = [line.answer() for line in lines]
        refused = [headers for status, headers, _ in answers if status == 429]
        assert {status for status, _, _ in answers} == {200, 429}
        assert all(int(headers["retry-after"]) >= 1 for headers in refused)
    with edge.client() as client:
        assert f'hanse_edge_requests_shed_total{{lane="query"}} {len(refused)}.0' in client.get("/metrics").text
        wait_until(lambda: client.post("/v1/recommendations", json={"user": "ada"}).status_code == 200)


def test_the_access_log_of_a_running_edge_names_nobody(start):
    edge = start(access_log="all")
    with edge.client() as client:
        client.post("/v1/recommendations?user=ada", json={"user": "ada"})
        client.get("/v1/users/ada")
    wait_until(lambda: (edge.folder / "log").read_bytes().count(b"\n") == 2)
    lines = [json.loads(line) for line in (edge.folder / "log").read_text().splitlines()]
    assert [(line["route"], line["status"], line["key"]) for line in lines] == [
        ("/v1/recommendations", 200, "all"),
        ("other", 404, "all"),
    ]
    assert "ada" not in (edge.folder / "log").read_text()
