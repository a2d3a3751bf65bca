"""An edge's query service in a process of its own, as the agent runs it: `server.py FOLDER SETTINGS`."""

import asyncio
import json
import secrets
import socket
import sys
import time
from pathlib import Path

import uvicorn
import uvloop

from edge.api.app import build_app
from edge.api.connections import server_config
from edge.api.keys import FILE, ApiKeys
from edge.records.store import Store
from edge.serving.release import Loaded
from edge.serving.service import Service
from edge.settings import ServingSettings
from edge.shop import Shop

folder, settings = Path(sys.argv[1]), ServingSettings(**json.loads(sys.argv[2]))
store = Store.open(folder / "store.db")
service = Service(store, Loaded.of(store, None), draw=secrets.token_bytes, now_ms=lambda: time.time_ns() // 10**6)
app = build_app(Shop(service=service), api_keys=ApiKeys.open(folder / FILE), settings=settings)
listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
server = uvicorn.Server(server_config(app, settings))
sys.stdout.write(f"{listener.getsockname()[1]}\n")
sys.stdout.flush()
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(server.serve(sockets=[listener]))
