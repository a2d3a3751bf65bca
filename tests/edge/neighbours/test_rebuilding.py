"""A running edge follows by itself, and an operator makes its books anew."""

import json
import subprocess
import sys
import time

import httpx
import pytest

from edge import cli
from edge.erasing import erase_at_rest
from edge.records.store import Store
from edge.settings import load
from simulation.processes import free_ports

HANSE_EDGE = [sys.executable, "-m", "edge.cli"]


@pytest.fixture
def shop(tmp_path, capsys):
    (port,) = free_ports(1)
    folder = tmp_path / "shop"
    assert cli.main(["new", "my-shop", "--dir", str(folder), "--port", str(port), "--json"]) == 0
    return {**json.loads(capsys.readouterr().out), "port": port, "folder": folder}


@pytest.fixture
def client(shop):
    server = subprocess.Popen([*HANSE_EDGE, "serve", "--dir", str(shop["folder"])])
    headers = {"Authorization": f"Bearer {shop['api_key']}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{shop['port']}", timeout=10, headers=headers) as client:
        try:
            eventually(lambda: client.get("/readyz").status_code == 200)
            yield client
        finally:
            server.terminate()
            assert server.wait(15) == 0


def eventually(what):
    deadline = time.monotonic() + 30
    while True:
        try:
            if what():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)


def bought_with(client, item, *, most):
    """So many companions at most; what the answer is filled up with comes after them."""
    answer = client.post("/v1/related", json={"item": item, "kind": "bought", "limit": most})
    if answer.status_code == 404:  # it has not been heard of yet
        return set()
    return {entry["item"] for entry in answer.json()["items"]} if answer.json()["rung"] == "companions" else set()


def test_a_running_edge_counts_what_happens_and_forgets_whom_it_shall(client, shop):
    now = int(time.time() * 1000)
    bought = [
        {"event_id": f"{user}-{item}", "type": "purchase", "user": user, "item": item, "time": now}
        for user, items in (("ada", ("tea", "secret")), ("bob", ("tea", "milk")))
        for item in items
    ]
    assert client.post("/v1/events", json={"events": bought}).json()["added"] == 4
    eventually(lambda: bought_with(client, "tea", most=2) == {"milk", "secret"})
    assert client.post("/v1/users/erase", json={"user": "ada"}).status_code == 200
    assert bought_with(client, "tea", most=1) == {"milk"}
    assert client.post("/v1/related", json={"item": "tea", "limit": 2}).json()["reasons"] == ["no_companions"]
    subprocess.run([*HANSE_EDGE, "rebuild", "books", "--dir", str(shop["folder"])], check=True)
    assert bought_with(client, "tea", most=1) == {"milk"}
    assert client.get("/v1/trending").json()["rung"] == "trending"


def test_books_are_made_anew_by_a_command(shop, diary, standing, follow, capsys):
    with Store.open(shop["folder"] / "store.db") as store:
        store.add_events(diary.basket("ada", ["tea", "milk"]))
        follow(into=store)
        before = standing(store)
        with store.writing() as db:
            db.execute("DELETE FROM neighbour_lists")
    assert cli.main(["rebuild", "books", "--dir", str(shop["folder"]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["events"] == 2
    with Store.open(shop["folder"] / "store.db") as store:
        assert standing(store) == before
    assert cli.main(["rebuild", "shelves", "--dir", str(shop["folder"])]) == 1
    assert "say books" in capsys.readouterr().err


def test_erased_at_rest_a_user_is_out_of_the_books_as_well(shop, diary, standing, follow):
    folder = shop["folder"]
    with Store.open(folder / "store.db") as store:
        store.add_events([*diary.basket("ada", ["tea", "secret"]), *diary.basket("bob", ["tea", "milk"])])
        follow(into=store)
    assert erase_at_rest(folder, load(folder), user="ada", session=None).known
    with Store.open(folder / "store.db") as store:
        assert (("bought", "tea"), "secret") not in standing(store).lists
        assert (("bought", "tea"), "milk") in standing(store).lists
