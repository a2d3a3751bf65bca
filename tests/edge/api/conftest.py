"""A query service behind real sockets, with keys for everything, for queries and for events."""

import json
import os
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from edge.api.keys import FILE, KeyFile
from edge.cli_keys import make
from edge.records.events import Item
from edge.records.store import Store

SERVER = Path(__file__).with_name("server.py")


class Line:
    """A socket to the service, byte by byte."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._read = b""

    def send(self, data):
        self.socket.sendall(data)

    def ask(self, head, body=b"", *headers):
        """One request, written down whole."""
        lines = [head, "Host: edge", *headers, *([f"Content-Length: {len(body)}"] if body else [])]
        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    def answer(self):
        """Status, headers and body of the next answer; None when the other side has closed."""
        while b"\r\n\r\n" not in self._read:
            if not self._more():
                return None
        head, _, rest = self._read.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = int(headers.get("content-length", 0))
        while len(rest) < length:
            piece = self.socket.recv(1 << 16)
            assert piece, "cut off"
            rest += piece
        self._read = rest[length:]
        return int(first.split()[1]), headers, rest[:length]

    def closed(self):
        """Nothing comes any more."""
        while self._more():
            pass
        return True

    def _more(self):
        try:
            piece = self.socket.recv(1 << 16)
        except ConnectionError:
            return False
        self._read += piece
        return bool(piece)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


class Running:
    """The service in its process."""

    def __init__(self, folder, process, port, headers):
        self.folder, self.process, self.port = folder, process, port
        self.keys = KeyFile(folder / FILE)
        self.headers = headers
        """With a key for everything."""

    def client(self, headers=None):
        headers = self.headers if headers is None else headers
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=30, trust_env=False)

    def line(self):
        return Line(self.port)

    def alive(self):
        with self.client() as client:
            return client.get("/healthz").json() == {"status": "ok"}

    def sockets(self):
        """How many it has open."""
        kinds = [str(path.readlink()) for path in Path(f"/proc/{self.process.pid}/fd").iterdir() if path.is_symlink()]
        return sum(kind.startswith("socket:") for kind in kinds)

    def memory(self):
        """Resident, in bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Start a service with these settings, or find it where it runs already; a shop of three items."""
    running = {}

    def start(**settings):
        told = json.dumps(settings)
        if told not in running:
            running[told] = begin(tmp_path_factory.mktemp("edge"), told)
        return running[told]

    yield start
    for edge in running.values():
        edge.process.kill()
        edge.process.wait()
        edge.process.stdout.close()


def begin(folder, settings):
    with Store.open(folder / "store.db") as store:
        store.put_items([Item(item=f"i{n}", title=f"Item {n}", category="tea") for n in range(1, 4)])
    secret = make(folder, "all", ["query", "ingest", "admin"], created=datetime.now(UTC))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, SERVER, folder, settings], stdout=subprocess.PIPE, stderr=log)
    port = process.stdout.readline()
    assert port, (folder / "log").read_text()
    return Running(folder, process, int(port), {"Authorization": f"Bearer {secret}"})


class Agent:
    """`hanse-edge serve` of a shop by itself: every part that the program has, in a process of its own."""

    def __init__(self, folder, process, port, key):
        self.folder, self.process, self.key = folder, process, key
        self.url = f"http://127.0.0.1:{port}"

    def client(self):
        headers = {"X-API-Key": self.key}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    def alive(self):
        return self.process.poll() is None and httpx.get(f"{self.url}/healthz").status_code == 200

    def log(self):
        return (self.folder / "log").read_text()


ITEMS = [
    {
        "item": f"i{n}",
        "title": f"Item {n}",
        "category": "tea" if n % 2 else "fish",
        "brand": "own",
        "price": n / 2,
        "stock": n,
    }
    for n in range(1, 13)
]
EVENTS = [
    {"event_id": f"{user}-{n}", "type": kind, "user": user, "item": f"i{n}"}
    for user in ("ada", "bo", "cy")
    for kind, n in [("view", 1), ("purchase", 2), ("add_to_cart", 3), ("purchase", 4), ("view", 7)]
]


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agent")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    program = [sys.executable, "-m", "edge.cli"]
    place = ["--dir", str(folder / "shop")]
    made = subprocess.check_output([*program, "new", "corner", "--port", str(port), "--json", *place])
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*program, "serve", *place], stderr=log, stdout=log)
    agent = Agent(folder, process, port, json.loads(made)["api_key"])
    try:
        wait_for(agent)
        with agent.client() as client:
            assert client.post("/v1/items", json={"items": ITEMS}).status_code == 200
            assert client.post("/v1/events", json={"events": EVENTS}).status_code == 200
        yield agent
    finally:
        process.terminate()
        process.wait()


def wait_for(agent):
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{agent.url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
        assert agent.process.poll() is None, agent.log()
        assert time.monotonic() < deadline, agent.log()
