"""A shop that belongs to no federation: set up by one command, it serves what it has."""

import json
import subprocess
import sys
import time

import httpx
import pytest

from edge import cli, settings
from edge.doctor import examine
from simulation.processes import free_ports

HANSE_EDGE = [sys.executable, "-m", "edge.cli"]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "shop"


@pytest.fixture
def shop(folder, capsys):
    (port,) = free_ports(1)
    assert cli.main(["new", "my-shop", "--dir", str(folder), "--port", str(port), "--json"]) == 0
    return {**json.loads(capsys.readouterr().out), "port": port}


def test_a_shop_alone_answers_from_its_own_books(shop, folder, tmp_path, capsys):
    items, events = tmp_path / "items.csv", tmp_path / "events.csv"
    items.write_text("item,title\ni1,Green tea\ni2,Black tea\n", "utf-8")
    events.write_text("event_id,type,user,item,time\ne1,purchase,ada,i2,2026-11-01\n", "utf-8")
    assert cli.main(["import", "items", str(items), "--dir", str(folder)]) == 0
    assert cli.main(["import", "events", str(events), "--dir", str(folder)]) == 0
    server = subprocess.Popen([*HANSE_EDGE, "serve", "--dir", str(folder)])
    try:
        answer = ask(server, shop, {"user": "ada", "limit": 2})
        assert [entry["item"] for entry in answer["items"]] == ["i2", "i1"]
        assert answer["reasons"] == ["no_release"]
    finally:
        server.terminate()
        assert server.wait(15) == 0
    assert "Traceback" not in capsys.readouterr().err


def ask(server, shop, body):
    with httpx.Client(base_url=f"http://127.0.0.1:{shop['port']}", timeout=10) as client:
        deadline = time.monotonic() + 30
        while True:
            assert server.poll() is None
            try:
                response = client.post(
                    "/v1/recommendations", json=body, headers={"Authorization": f"Bearer {shop['api_key']}"}
                )
                return response.raise_for_status().json()
            except httpx.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.1)


@pytest.mark.usefixtures("shop")
def test_setting_up_twice_is_refused_and_changes_nothing(folder, capsys):
    before = (folder / "edge.toml").read_bytes()
    assert cli.main(["new", "other", "--dir", str(folder)]) == 1
    assert "is an edge already" in capsys.readouterr().err
    assert (folder / "edge.toml").read_bytes() == before


def test_a_name_that_is_none_makes_no_folder(folder, capsys):
    assert cli.main(["new", "My Shop!", "--dir", str(folder)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not folder.exists()


@pytest.mark.usefixtures("shop")
def test_commands_that_need_a_center_say_how_to_get_one(folder, capsys):
    assert cli.main(["renew", "--dir", str(folder)]) == 1
    assert "hanse-edge join TOKEN" in capsys.readouterr().err


@pytest.mark.usefixtures("shop")
def test_the_doctor_looks_for_no_center(folder):
    names = [finding.check for finding in examine(folder, settings.load(folder), now=None)]
    assert "broker" not in names
    assert "books" in names
