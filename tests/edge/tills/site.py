"""A site's own broker, a till that publishes on it, and an edge that listens, in this process or in one of its own."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import orjson
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from center.mqtt.broker import mosquitto_path
from edge.settings import TillSettings
from edge.tills.listening import Tills
from edge.tills.rejects import FILE_NAME, Rejects
from edge.tills.taking import taking
from simulation.processes import free_ports

NOW = 1_795_000_000_000
TOPIC = "shop/events"
PASSWORD = "till-and-edge"
MOSQUITTO = """
listener {port} 127.0.0.1
allow_anonymous false
password_file {folder}/passwords
persistence true
persistence_location {folder}/
autosave_interval 1
autosave_on_changes true
max_queued_messages 0
log_dest stderr
log_type all
"""
AMQTT = """
import asyncio, sys
from amqtt.broker import Broker
async def main():
    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    listener = {"type": "tcp", "bind": "127.0.0.1:" + sys.argv[1]}
    await Broker({"listeners": {"default": listener}, "plugins": plugins}).start()
    await asyncio.Event().wait()
asyncio.run(main())
"""


class SiteBroker:
    """Mosquitto with a password, or amqtt without."""

    def __init__(self, folder: Path, kind: str):
        self.folder, self.kind = folder, kind
        (self.port,) = free_ports(1)
        folder.mkdir()
        if kind == "mosquitto":
            (folder / "mosquitto.conf").write_text(
                MOSQUITTO.format(port=self.port, folder=folder) + ("user root\n" if os.geteuid() == 0 else "")
            )
            passwords = folder / "passwords"
            passwords.touch(mode=0o600)
            subprocess.run(["mosquitto_passwd", "-b", passwords, "shop", PASSWORD], check=True, capture_output=True)
        self.start()

    def start(self):
        command = [sys.executable, "-c", AMQTT, str(self.port)]
        if self.kind == "mosquitto":
            command = [mosquitto_path(), "-c", str(self.folder / "mosquitto.conf")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        waited(self._listens)

    def log(self):
        return (self.folder / "log").read_text("utf-8", errors="replace")

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(10)

    def _listens(self):
        assert self.process.poll() is None, self.log()
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def client(self, name, **options):
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv311, **options)
        client.username_pw_set("shop", PASSWORD)
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        return client

    def publish(self, *payloads, retain=False):
        """As a till does; returns when the broker has them."""
        till = self.client("till-3")
        try:
            for payload in payloads:
                data = payload if isinstance(payload, bytes) else orjson.dumps(payload)
                till.publish(TOPIC, data, qos=1, retain=retain).wait_for_publish(10)
        finally:
            till.disconnect()
            till.loop_stop()


class Site:
    """An edge's service in this process, listening to its tills."""

    def __init__(self, folder, service, broker, **settings):
        self.folder, self.service, self.broker = folder, service, broker
        (folder / "password").write_text(PASSWORD + "\n")
        self.settings = TillSettings(
            **{
                "host": "127.0.0.1",
                "port": broker.port,
                "username": "shop",
                "password_file": "password",
                "client_id": "edge",
                **settings,
            }
        )
        self.rejects = Rejects(folder / FILE_NAME)

    async def __aenter__(self):
        self.tills = self.new()
        self.tills.start()
        await until(lambda: not self.tills.trouble)
        return self

    async def __aexit__(self, *_):
        await self.tills.stop()

    def new(self):
        return Tills(self.settings, taking(self.service), self.rejects, folder=self.folder, site="luebeck")

    async def publish(self, *payloads, **options):
        await asyncio.to_thread(self.broker.publish, *payloads, **options)

    def refused(self):
        path = self.rejects.path
        return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    def events(self):
        """Type, user and item of what is in the books."""
        with self.service.store.reading() as db:
            return db.execute(
                "SELECT events.type, users.name, items.name FROM events JOIN users ON users.id = user "
                "LEFT JOIN items ON items.id = item WHERE session IS 'till' ORDER BY events.id"
            ).fetchall()

    def outcomes(self):
        """What the metrics have counted."""
        page = self.service.metrics.page().decode()
        lines = [line for line in page.splitlines() if line.startswith("hanse_edge_till_events_total{")]
        return {line.split('"')[1]: int(float(line.split()[-1])) for line in lines}


def event(user="eva", **others):
    return {"type": "purchase", "user": user, "item": "i1", "session": "till", **others}


async def until(condition, *, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.02)


def waited(condition, *, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


class Process:
    """The same as a real `hanse-edge serve`."""

    def __init__(self, folder: Path, broker: SiteBroker):
        self.folder, self.broker, self.process = folder, broker, None
        (self.port,) = free_ports(1)
        (folder / "password").write_text(PASSWORD)
        (folder / "edge.toml").write_text(
            f'[site]\nname = "luebeck"\n[serving]\nport = {self.port}\nrequire_api_key = false\n'
            f'[tills]\nhost = "127.0.0.1"\nport = {broker.port}\nusername = "shop"\npassword_file = "password"\n'
        )

    def start(self):
        self.log = (self.folder / "edge.log").open("ab")
        command = [sys.executable, "-m", "edge.cli", "serve", "--dir", str(self.folder)]
        self.process = subprocess.Popen(command, stderr=self.log)
        waited(lambda: self.ready().get("tills") == "heard", seconds=40)

    def ready(self):
        assert self.process.poll() is None, (self.folder / "edge.log").read_text()
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5, trust_env=False).json()
        except httpx.TransportError:
            return {}

    def end(self, how=signal.SIGTERM):
        if self.process is None:
            return None
        self.process.send_signal(how)
        code = self.process.wait(30)
        self.process = None
        self.log.close()
        return code
