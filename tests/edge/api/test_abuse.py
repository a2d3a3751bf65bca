"""What vandals send. The service answers with a problem or not at all, never with 5xx, and goes on."""

import contextlib
import gzip
import select

import pytest

JSON = {"Content-Type": "application/json"}
PATHS = ["/v1/recommendations", "/v1/similar", "/v1/events"]
DEEP = 200_000
HUGE = 100 << 20
GOOD = b'{"user": "ada", "limit": 1}'


@pytest.fixture(scope="module")
def edge(start):
    edge = start(access_log="failures")
    yield edge
    assert edge.alive()
    assert (edge.folder / "log").read_bytes() == b""  # no failure, no stack trace


@pytest.fixture(scope="module")
def shop(edge):
    with edge.client() as client:
        yield client


def refused(response, *statuses):
    body = response.json()
    return (
        response.status_code in (statuses or range(400, 500))
        and body["status"] == response.status_code
        and response.headers["content-type"] == "application/problem+json"
        and body["detail"].isprintable()
        and len(body["detail"]) < 2_000
        and "Traceback" not in response.text
    )


NONSENSE = {
    "nothing": b"",
    "half": b'{"user": "ada"',
    "text": b"hello",
    "latin-1": '{"user": "Jürgen"}'.encode("latin-1"),
    "utf-16": '{"user": "ada"}'.encode("utf-16"),
    "bom": b"\xef\xbb\xbf{}",
    "overlong": b'{"user": "\xc0\xaf"}',
    "surrogate bytes": b'{"user": "\xed\xa0\x80"}',
    "lone surrogate": b'{"user": "\\ud800"}',
    "lone surrogate as a name": b'{"\\udfff": 1}',
    "nul": b'{"user": "a\\u0000b", "type": "view", "item": "a\\u0000b"}',
    "raw nul": b'{"user": "a\0b"}',
    "lines": b'{"a\\nb\\u2028c": 1}',
    "long name": b'{"' + b"n" * 900_000 + b'": 1}',
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"user":' * (DEEP // 2) + b"1" + b"}" * (DEEP // 2),
    "deep within": b'{"user": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "infinity": b'{"user": "ada", "limit": Infinity}',
    "number of a million digits": b'{"user": "ada", "limit": ' + b"9" * 900_000 + b"}",
    "large exponent": b'{"user": "ada", "limit": 1e999999}',
    "many names": b"{" + b",".join(b'"n%d": 1' % n for n in range(50_000)) + b"}",
    "one name many times": b"{" + b",".join(b'"user": "u%d"' % n for n in range(50_000)) + b', "x": 1}',
    "many wrong events": b'{"events": [' + b",".join([b"{}"] * 300_000) + b"]}",
    "a million items": b'{"history": [' + b",".join([b'"i"'] * 1_000_000) + b"]}",
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_is_a_problem_in_one_line(shop, path, kind):
    assert refused(shop.post(path, content=NONSENSE[kind], headers=JSON), 413, 422)


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "",
        "\xff",
    ],
)
def test_what_is_not_said_to_be_json_is_not_read_as_json(shop, kind):
    """A web page that a shopkeeper looks at may send such bodies to an edge without a key, and no others."""
    response = shop.post("/v1/recommendations", content=GOOD, headers={"Content-Type": kind.encode("latin-1")})
    assert refused(response, 415)


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.shop+json"])
def test_json_by_its_other_names(shop, kind):
    assert shop.post("/v1/recommendations", content=GOOD, headers={"Content-Type": kind}).status_code == 200


def test_compressed_bodies_are_not_unpacked(shop):
    packed = shop.post("/v1/recommendations", content=gzip.compress(GOOD), headers=JSON | {"Content-Encoding": "gzip"})
    assert refused(packed, 415, 422)


@pytest.mark.parametrize("path", PATHS)
def test_100_megabytes_are_refused_by_their_length(edge, path):
    with edge.line() as line:
        line.ask(f"POST {path} HTTP/1.1", b"", *heads(edge), f"Content-Length: {HUGE}", "Expect: 100-continue")
        status, headers, _ = line.answer()  # nothing of the body was sent
        assert (status, headers["connection"]) == (413, "close")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("key", [True, False])
def test_100_megabytes_in_pieces_are_refused_on_the_way(edge, path, key):
    memory, sent, piece = edge.memory(), 0, b"10000\r\n" + b" " * (1 << 16) + b"\r\n"
    with edge.line() as line:
        line.ask(f"POST {path} HTTP/1.1", b"", *(heads(edge) if key else []), "Transfer-Encoding: chunked")
        with contextlib.suppress(ConnectionError):
            while sent < HUGE and not select.select([line.socket], [], [], 0)[0]:
                line.send(piece)
                sent += len(piece)
        assert line.answer()[0] == (413 if key else 401)
    assert sent < 40 << 20
    assert edge.memory() - memory < 64 << 20


@pytest.mark.parametrize("key", [True, False])
def test_who_does_not_listen_is_cut_off(edge, key):
    with edge.line() as line:
        line.ask("POST /v1/recommendations HTTP/1.1", b"", *(heads(edge) if key else []), "Transfer-Encoding: chunked")
        with pytest.raises(ConnectionError):
            flood(line)


def flood(line):
    for _ in range(HUGE >> 16):
        line.send(b"10000\r\n" + b" " * (1 << 16) + b"\r\n")


def test_who_sends_100_megabytes_and_only_then_listens_reads_why(shop):
    def endless():
        for _ in range(HUGE >> 16):
            yield b" " * (1 << 16)

    assert refused(shop.post("/v1/recommendations", content=endless(), headers=JSON), 413)


def heads(edge):
    return [f"Authorization: {edge.headers['Authorization']}", "Content-Type: application/json"]


@pytest.mark.parametrize(
    "more",
    [
        ["Authorization: Bearer wrong"],
        ["X-API-Key: wrong", "X-API-Key: wronger"],
        ["Content-Type: application/json", "Content-Type: text/plain"],
        ["Host: other"],
        ["Transfer-Encoding: identity"],
        ["Cookie: " + "c" * 10_000],
        [f"X-{number}: {number}" for number in range(100)],
    ],
)
def test_headers_twice_over(edge, more):
    with edge.line() as line:
        line.ask("POST /v1/recommendations HTTP/1.1", GOOD, *heads(edge), *more)
        assert line.answer()[0] in {200, 400}


def test_a_second_key_opens_nothing_that_the_first_does_not(edge):
    with edge.line() as line:
        line.ask("POST /v1/recommendations HTTP/1.1", GOOD, "Authorization: Bearer wrong", *heads(edge))
        assert line.answer()[0] == 401


NOWHERE = [
    "/%00",
    "/%0d%0aX:x",
    "/../../etc/passwd",
    "//v1//events",
    "/v1/events/",
    "/%ff%fe",
    "*",
    "/x?" + "q" * 9000,
]


@pytest.mark.parametrize("target", NOWHERE)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_paths_that_lead_nowhere(edge, method, target):
    with edge.line() as line:
        line.ask(f"{method} {target} HTTP/1.1", b"", *heads(edge))
        assert line.answer()[0] in {400, 404, 405}


def test_unknown_items_and_users_are_ordinary(shop):
    unknown = {"history": [f"no-{n}" for n in range(1_000)], "exclude": [f"not-{n}" for n in range(1_000)]}
    assert shop.post("/v1/recommendations", json=unknown).json()["items"]
    assert refused(shop.post("/v1/similar", json={"item": "nothing"}), 404)
    assert refused(shop.post("/v1/events", json={"type": "view", "user": "u", "item": "nothing"}), 422)


def test_what_callers_make_up_does_not_grow_the_figures(edge, shop):
    before = len(shop.get("/metrics").text)
    with edge.line() as line:
        for number in range(20_000):
            line.send(f"GET /made-up/{number}?user=u{number} HTTP/1.1\r\n{heads(edge)[0]}\r\n\r\n".encode())
            if number % 50 == 49:
                assert {line.answer()[0] for _ in range(50)} == {404}
    for method in ("PUT", "DELETE", "PROPFIND", "MKCOL"):
        shop.request(method, "/v1/events")
    page = shop.get("/metrics").text
    assert 'hanse_edge_requests_total{method="other",route="other",status="404"}' in page
    assert len(page) < before + 2_000
    assert "made-up" not in page


def test_nothing_of_the_body_comes_back_as_markup(shop):
    response = shop.post("/v1/recommendations", json={"<script>alert(1)</script>": 1})
    assert response.headers["content-type"] == "application/problem+json"


def test_problems_do_not_repeat_what_was_private(shop):
    response = shop.post("/v1/recommendations", json={"user": "ada lovelace", "limit": "x"})
    assert refused(response, 422)
    assert "lovelace" not in response.text
