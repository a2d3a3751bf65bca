import socket
import ssl
import threading

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.clientapp import ClientApp

from center.sites.gateway import ENROLL_PATH, FLEET_PATHS, LARGEST_BODY, Gateway, nginx_configuration
from edge.rounds.flower_node import FlowerNode
from protocol.errors import BadInputError, NotAdmittedError, UntrustedError

PROTOBUF = {"content-type": "application/protobuf"}


def _enroll(token: str, body: bytes) -> bytes:
    if token != "good":
        raise UntrustedError("this token is not one of ours")
    if not body:
        raise BadInputError("no keys in this request", advice="send them")
    return b"welcome " + body


@pytest.fixture
def door(superlink, papers):
    door = Gateway(
        host="127.0.0.1",
        port=0,
        certificate=papers.certificate,
        key=papers.key,
        superlink_url=superlink.url,
        ca_certificate=papers.ca,
        enroll=_enroll,
    )
    door.start()
    yield door
    door.stop()


@pytest.fixture
def stranger(door, papers):
    """Somebody who holds the CA certificate and nothing else."""
    trust = ssl.create_default_context(cafile=papers.ca)
    with httpx.Client(base_url=door.url, verify=trust, trust_env=False) as client:
        yield client


def _raw(door, papers, request: bytes) -> tuple[bytes, bytes]:
    """Send these very bytes; status line and body."""
    trust = ssl.create_default_context(cafile=papers.ca)
    with (
        socket.create_connection(("127.0.0.1", door.port), timeout=10) as line,
        trust.wrap_socket(line, server_hostname="127.0.0.1") as tls,
    ):
        tls.sendall(request)
        answer = b""
        while chunk := tls.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0], body


def _sight(answer: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    """All that a caller can see of an answer, but for the clock."""
    return answer.status_code, answer.content, {name: text for name, text in answer.headers.items() if name != "date"}


def test_a_stranger_sees_health(stranger):
    assert stranger.get("/health").is_success


@pytest.mark.parametrize("path", FLEET_PATHS)
def test_a_stranger_who_calls_the_fleet_api_is_not_let_in(stranger, path):
    assert stranger.post(path, headers=PROTOBUF).status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/control/start-run"),
        ("POST", "/v1/control/register-node"),
        ("POST", "/v1/control/list-nodes"),
        ("POST", "/v1/runtime/acquire-task"),
        ("POST", "/v1/runtime/push-messages"),
        ("POST", "/v1/fleet/register-node"),
        ("POST", "/v1/fleet/unregister-node"),
        ("POST", "/v1/fleet/get-run"),
        ("POST", "/v1/fleet/get-fab"),
        ("GET", "/v1/fleet/pull-messages"),
        ("PUT", "/v1/fleet/push-object"),
        ("POST", "/health"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/"),
        ("POST", "/v1/fleet/pull-messages/"),
        ("POST", "/v1/fleet/pull-messages?x=1"),
        ("POST", "/v1/enroll"),
        ("GET", "/v1/enroll"),
    ],
)
def test_all_else_does_not_exist(stranger, method, path):
    nothing = stranger.request("POST", "/no-such-thing", headers=PROTOBUF)
    assert nothing.status_code == 404
    assert _sight(stranger.request(method, path, headers=PROTOBUF)) == _sight(nothing)


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/fleet/../control/list-nodes",
        b"/v1/fleet/pull-messages/../../control/list-nodes",
        b"/v1/fleet/%2e%2e/control/list-nodes",
        b"/v1/fleet%2fpull-messages",
        b"/v1/fleet//pull-messages",
        b"//v1/fleet/pull-messages",
        b"/v1/control/../fleet/pull-messages",
        b"/v1/fleet/pull-messages;x",
        b"/v1/fleet/pull-messages%00",
        b"/v1/fleet/pull-messages%20",
        b"/V1/fleet/pull-messages",
        b"https://127.0.0.1/v1/fleet/pull-messages",
        b"http://169.254.169.254/v1/control/list-nodes",
    ],
)
def test_no_path_trick_gets_past_the_list(door, papers, target):
    request = (
        b"POST " + target + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/protobuf\r\n"
        b"Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
    assert _raw(door, papers, request) == (b"HTTP/1.1 404 Not Found", b"not found\n")


def test_a_smuggled_second_request_is_not_forwarded(door, papers):
    request = (
        b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/protobuf\r\n"
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b"0\r\n\r\nPOST /v1/control/list-nodes HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    status, _ = _raw(door, papers, request)
    assert status in {b"HTTP/1.1 400 Bad Request", b"HTTP/1.1 401 Unauthorized"}


def test_a_wrong_token_looks_like_a_path_that_does_not_exist(stranger):
    nothing = stranger.post("/no-such-thing", content=b"keys")
    for token in ("Bearer wrong", "Bearer", "Basic good", "good", ""):
        answer = stranger.post(ENROLL_PATH, content=b"keys", headers={"authorization": token})
        assert _sight(answer) == _sight(nothing)
    too_long = stranger.post(ENROLL_PATH, content=bytes(1 << 20), headers={"authorization": "Bearer good"})
    assert _sight(too_long) == _sight(nothing)


def test_a_good_token_gets_in_and_a_bad_request_is_told_why(stranger):
    good = {"authorization": "Bearer good"}
    assert stranger.post(ENROLL_PATH, content=b"keys", headers=good).content == b"welcome keys"
    refused = stranger.post(ENROLL_PATH, headers=good)
    assert (refused.status_code, refused.text) == (400, "no keys in this request (send them)\n")


def test_a_body_beyond_the_limit_is_refused_whether_announced_or_not(stranger):
    announced = stranger.post("/v1/fleet/push-object", content=bytes(LARGEST_BODY + 1), headers=PROTOBUF)
    assert announced.status_code == 413
    chunks = (bytes(1 << 20) for _ in range(8))
    assert stranger.post("/v1/fleet/push-object", content=chunks, headers=PROTOBUF).status_code == 413


def test_a_key_that_was_never_admitted_does_not_get_in(door, papers):
    node = FlowerNode(
        gateway_url=door.url,
        ca_certificate=papers.ca,
        node_key=ec.generate_private_key(ec.SECP384R1()),
        app=ClientApp(),
        patience=0,
    )
    with pytest.raises(NotAdmittedError, match="does not let this node in"):
        node.run(threading.Event())


def test_an_absent_superlink_is_a_pause_not_an_end(papers):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = f"https://127.0.0.1:{nobody.getsockname()[1]}"
    door = Gateway(
        host="127.0.0.1",
        port=0,
        certificate=papers.certificate,
        key=papers.key,
        superlink_url=address,
        ca_certificate=papers.ca,
    )
    door.start()
    trust = ssl.create_default_context(cafile=papers.ca)
    with httpx.Client(base_url=door.url, verify=trust, trust_env=False) as client:
        for answer in (client.get("/health"), client.post("/v1/fleet/pull-messages", headers=PROTOBUF)):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    door.stop()


def test_port_in_use_is_one_clear_error(door, papers):
    second = Gateway(
        host="127.0.0.1",
        port=door.port,
        certificate=papers.certificate,
        key=papers.key,
        superlink_url="https://127.0.0.1:1",
        ca_certificate=papers.ca,
    )
    with pytest.raises(BadInputError, match=f"port {door.port} on 127.0.0.1 cannot be used"):
        second.start()


def test_nginx_lets_the_same_paths_through(papers):
    text = nginx_configuration(
        server_name="center.example",
        port=443,
        certificate=papers.certificate,
        key=papers.key,
        superlink_url="https://127.0.0.1:8000",
        ca_certificate=papers.ca,
    )
    locations = [line.split()[2] for line in text.splitlines() if line.strip().startswith("location = ")]
    assert locations == [*FLEET_PATHS, "/health"]
    assert text.count("{") == text.count("}")
