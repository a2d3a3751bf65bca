import http.server
import os
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, Metadata, MetricRecord, RecordDict

from center.rounds.transport import contents
from edge.rounds.flower_node import FlowerNode, app, build_client_app
from protocol import transport as wire
from protocol.transport import Reply, Request

_EDGE = """
import sys, threading, time
from pathlib import Path
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from edge.rounds.flower_node import FlowerNode, build_client_app
from protocol.transport import Reply
url, ca, key, memory, pause = sys.argv[1:]

def answer(request):
    print("working", flush=True)
    time.sleep(float(pause))
    rss = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return Reply(body=f"{'torch' in sys.modules} {rss}".encode())

FlowerNode(
    gateway_url=url,
    ca_certificate=Path(ca),
    node_key=load_pem_private_key(Path(key).read_bytes(), None),
    app=build_client_app(answer),
    memory=Path(memory),
).run(threading.Event(), idle=20)
"""


def _message(content: RecordDict, *, message_type: str = wire.MESSAGE_TYPE) -> Message:
    metadata = Metadata(
        run_id=1,
        message_id="a",
        src_node_id=1,
        dst_node_id=2,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=60.0,
        message_type=message_type,
    )
    return Message(content=content, metadata=metadata)


def _context() -> Context:
    return Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={})


def _request(**changes) -> Request:
    return Request(**{"action": "test", "document": b"a", "weights": b"w"} | changes)


def _array(**changes) -> ArrayRecord:
    fields = {"dtype": wire.DTYPE, "shape": (1,), "stype": wire.STYPE, "data": b"w"} | changes
    return ArrayRecord({wire.BYTES: Array(**fields)})


def _config(**changes) -> ConfigRecord:
    return ConfigRecord({wire.FORMAT: 2, wire.ACTION: "test", wire.DOCUMENT: b"a", wire.PAPERS: b"p"} | changes)


MALFORMED = {
    "nothing": {},
    "weights alone": {wire.WEIGHTS: _array()},
    "a record more": {wire.REQUEST: _config(), wire.WEIGHTS: _array(), "code": ConfigRecord({"run": "rm"})},
    "a key more": {wire.REQUEST: _config(eval="1"), wire.WEIGHTS: _array()},
    "another format": {wire.REQUEST: _config(format=3), wire.WEIGHTS: _array()},
    "action is no text": {wire.REQUEST: _config(action=1), wire.WEIGHTS: _array()},
    "document is text": {wire.REQUEST: _config(document="a"), wire.WEIGHTS: _array()},
    "weights are a pickle": {wire.REQUEST: _config(), wire.WEIGHTS: _array(stype="numpy.ndarray")},
    "weights of another shape": {wire.REQUEST: _config(), wire.WEIGHTS: _array(shape=(2,))},
    "weights are metrics": {wire.REQUEST: _config(), wire.WEIGHTS: MetricRecord({"bytes": 1.0})},
    "two arrays": {
        wire.REQUEST: _config(),
        wire.WEIGHTS: ArrayRecord({"bytes": _array()["bytes"], "more": _array()["bytes"]}),
    },
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_the_center_would_not_have_written_is_refused_unread(case):
    asked = []
    client = build_client_app(lambda request: asked.append(request) or Reply(body=b""))
    reply = client(_message(RecordDict(MALFORMED[case])), _context())
    assert reply.error.code == wire.REFUSED
    assert len(reply.error.reason.splitlines()) == 1
    assert asked == []


def test_a_request_asked_twice_is_worked_on_once():
    asked = []
    client = build_client_app(lambda request: Reply(body=asked.append(request) or os.urandom(8)))
    first, again = (client(_message(contents(_request())), _context()) for _ in range(2))
    other = client(_message(contents(_request(weights=b"v"))), _context())
    assert first.content[wire.REPLY]["bytes"] == again.content[wire.REPLY]["bytes"]
    assert other.content[wire.REPLY]["bytes"] != first.content[wire.REPLY]["bytes"]
    assert [request.weights for request in asked] == [b"w", b"v"]


def test_the_app_outside_an_edge_is_there_and_knows_nothing():
    here = app(_message(contents(_request(action="roll-call"))), _context())
    assert here.content[wire.REPLY]["bytes"] == b"here"
    assert "hanse-edge" in app(_message(contents(_request())), _context()).error.reason


def test_a_message_of_another_kind_is_refused_and_the_node_goes_on(crew, rounds):
    edge = crew.hire("shop-a")
    transport = crew.transport()
    assert rounds.ask(transport, edge)[edge].body
    grid, node = transport._grid, transport._nodes[edge].node_id
    message = transport._message(node, RecordDict({"code": ConfigRecord({"run": "anything"})}))
    message.metadata.message_type = "train"
    (message_id,) = grid.push_messages([message])
    replies = []
    while not replies:
        replies = grid.pull_messages([message_id])
    assert "requests of its federation only" in replies[0].error.reason
    assert rounds.ask(transport, edge)[edge].body


def test_a_request_beyond_the_limit_is_refused_and_the_node_goes_on(crew, rounds):
    edge = crew.hire("shop-a", largest=1 << 20)
    transport = crew.transport()
    assert "too large" in rounds.ask(transport, edge, weights=bytes(2 << 20))[edge].error
    assert rounds.ask(transport, edge)[edge].body


class Wire:
    """A line between two ports that can be pointed elsewhere, or cut in the middle of whatever it carries."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.target == 0:
                near.close()
                self.cuts += 1
                continue
            far = socket.create_connection(("127.0.0.1", self.target))
            self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            end.close()

    def cut(self) -> None:
        """End every line, now."""
        for end in self._open:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                end.close()
        self._open = []

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()


@pytest.fixture
def line(gateway):
    line = Wire(gateway.port)
    yield line
    line.close()


@pytest.fixture
def failing_server(papers):
    """Answers 500 to everything."""

    class Failing(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.server.asked += 1
            self.send_error(500)

        def log_message(self, *_arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing)
    server.asked = 0
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(papers.certificate, papers.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _wait(condition, *, within: float = 15.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def test_a_status_500_is_survived(crew, line, failing_server, rounds):
    edge = crew.hire("shop-a", url=f"https://127.0.0.1:{line.port}")
    transport = crew.transport()
    assert rounds.ask(transport, edge)[edge].body
    good, line.target = line.target, failing_server.server_address[1]
    line.cut()
    _wait(lambda: failing_server.asked >= 3)
    line.target = good
    line.cut()
    assert rounds.ask(transport, edge)[edge].body


def test_a_line_that_ends_within_tls_is_survived(crew, line, rounds):
    edge = crew.hire("shop-a", url=f"https://127.0.0.1:{line.port}")
    transport = crew.transport()
    assert rounds.ask(transport, edge)[edge].body
    good, line.target = line.target, 0
    line.cut()
    _wait(lambda: line.cuts >= 3)
    line.target = good
    assert rounds.ask(transport, edge)[edge].body


def test_a_round_whose_line_is_cut_while_the_edge_works_is_answered(crew, line, rounds):
    asked = []
    working = threading.Event()

    def slowly(request: Request) -> Reply:
        asked.append(request)
        working.set()
        time.sleep(0.5)
        return Reply(body=request.weights)

    edge = crew.hire("shop-a", slowly, url=f"https://127.0.0.1:{line.port}")
    transport = crew.transport()
    transport.send({edge: _request()})
    while not working.is_set():
        transport.receive(timeout=0.05)
    line.cut()
    assert rounds.collect(transport, edge)[edge].body == b"w"
    assert len(asked) == 1


def test_a_restart_of_superlink_is_survived(crew, gateway, superlink, rounds):
    edge = crew.hire("shop-a", url=gateway.url)
    transport = crew.transport()
    assert rounds.ask(transport, edge)[edge].body
    os.kill(superlink.pid, 9)
    os.waitid(os.P_PID, superlink.pid, os.WEXITED | os.WNOWAIT)
    time.sleep(1.0)
    superlink.watch()
    assert rounds.ask(transport, edge)[edge].body


def test_an_edge_killed_at_work_is_back_within_seconds_and_answers_the_same_round(
    crew, tmp_path, rounds, record_property
):
    edge = crew.admit("shop-a")
    key = tmp_path / "node.key"
    key.write_bytes(crew.keys[edge].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def start(pause: float) -> subprocess.Popen:
        arguments = [crew.url, crew.ca, key, tmp_path / "node.number", str(pause)]
        return subprocess.Popen([sys.executable, "-c", _EDGE, *arguments], stdout=subprocess.PIPE, text=True)

    first = start(60)
    transport = crew.transport()
    transport.send({edge: _request()})
    threading.Thread(target=lambda: first.stdout.readline() and first.kill()).start()
    while first.poll() is None:
        assert transport.receive(timeout=0.1) == []
    first.stdout.close()
    began = time.monotonic()
    second = start(0)
    try:
        torch, rss = rounds.collect(transport, edge)[edge].body.split()
        seconds = time.monotonic() - began
    finally:
        second.kill()
        second.wait()
        second.stdout.close()
    record_property("seconds", seconds)
    record_property("peak_rss_kib", int(rss))
    assert seconds < 10
    assert torch == b"False"


def test_a_node_told_to_stop_leaves_at_once(crew):
    edge = crew.hire("shop-a")
    transport = crew.transport()
    _wait(lambda: edge in transport.online())
    crew.dismiss(edge)
    assert edge not in transport.online()


def test_a_node_without_work_ends_by_itself(crew, tmp_path):
    edge = crew.admit("shop-a")
    node = FlowerNode(
        gateway_url=crew.url,
        ca_certificate=crew.ca,
        node_key=crew.keys[edge],
        app=app,
        memory=tmp_path / "node.number",
        poll=0.05,
    )
    began = time.monotonic()
    node.run(threading.Event(), idle=0.5)
    assert 0.5 <= time.monotonic() - began < 5
    assert int((tmp_path / "node.number").read_text()) > 0
