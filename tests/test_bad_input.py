"""What the real commands say to bad input: one line on standard error, exit code 1 (2 for usage), nothing changed."""

import fcntl
import http.server
import socket
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

import edge.cli
import simulation.cli
from center import cli as center_cli
from center import founding
from center import settings as center_settings
from center.founding import Addresses
from center.keys import CenterKeys
from center.registry import Registry
from center.sites import admission, authority, inviting
from center.sites.certificates import Certificates
from center.sites.enrolment import Reception
from center.sites.gateway import Gateway
from center.sites.issuing import Issuer, Renewals
from edge.keys import Keys
from edge.records.store import Store
from protocol.enrolment import Token
from protocol.identity import EdgeId, FederationId

NOW = datetime.now(UTC)
EVENTS = "event_id,time,type,user,item\ne1,2026-01-02T00:00:00Z,purchase,u1,i1\n"
PROGRAMS = {"edge": edge.cli.main, "center": center_cli.main, "sim": simulation.cli.main}


@pytest.fixture
def say(capsys):
    """Run a command that must fail as our commands fail; the one line it says."""

    def run(program, *words, code=1):
        capsys.readouterr()
        assert PROGRAMS[program]([str(word) for word in words]) == code
        line = capsys.readouterr().err
        assert line.count("\n") == 1, line
        assert line.startswith(f"{program}: ")
        return line

    return run


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def found(folder, name="hanse"):
    addresses = Addresses(
        host="127.0.0.1", gateway_port=free_port(), superlink_port=free_port(), broker_port=free_port()
    )
    founding.found(folder, federation=FederationId(name), addresses=addresses, now=NOW)
    return folder


class Town:
    """A center's folder and its real gateway and reception, with no SuperLink behind."""

    def __init__(self, folder):
        self.folder = found(folder)
        self.settings = center_settings.load(folder)
        self.keys = CenterKeys.load(folder)
        self.registry = Registry(folder / "registry.db")
        self.nodes = []
        self.now = NOW
        self.issuer = Issuer(
            certificates=Certificates(self.registry.path),
            authority=self.keys.authority,
            authority_key=self.keys.authority_key,
            now_ms=lambda: int(self.now.timestamp() * 1000),
        )
        reception = Reception(
            registry=self.registry,
            issuer=self.issuer,
            broker=self.settings.broker,
            root=lambda number: founding.open_repository(folder).root(number),
            register_node=self.nodes.append,
            now_ms=lambda: int(self.now.timestamp() * 1000),
        )
        self.gateway = Gateway(
            host="127.0.0.1",
            port=self.settings.gateway.port,
            certificate=folder / "keys" / "tls.crt",
            key=folder / "keys" / "tls.key",
            superlink_url="https://127.0.0.1:1",
            ca_certificate=folder / "trust" / "ca.crt",
            enroll=reception.enroll,
            renew=Renewals(issuer=self.issuer, roster=self.roster).renew,
        )
        self.gateway.start()

    def roster(self):
        return admission.read_roster(self.folder, federation=FederationId("hanse"), keys=self.keys)

    def token(self, site="visby"):
        return inviting.invite(self.folder, site, life=timedelta(hours=1), now=self.now)

    def close(self):
        self.gateway.stop()
        self.registry.close()


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    town = Town(tmp_path_factory.mktemp("town") / "center")
    yield town
    town.close()


@pytest.fixture
def shop(town, tmp_path):
    """A site that has joined, under a name of its own."""
    name = f"shop-{len(town.nodes)}"
    assert edge.cli.main(["join", town.token(name), "--dir", str(tmp_path / name), "--port", str(free_port())]) == 0
    return tmp_path / name


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_unknown_command(say, program) -> None:
    assert "No such command 'sing'" in say(program, "sing", code=2)


def test_missing_and_wrong_words(say, tmp_path) -> None:
    assert "TOKEN" in say("edge", "join", code=2)
    assert "65535" in say("edge", "join", "t", "--port", 70_000, code=2)
    assert "65535" in say("center", "init", "hanse", "--dir", tmp_path, "--gateway-port", 70_000, code=2)
    assert "3<=x<=457" in say("sim", "demo", "--sites", 2, code=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["short", "typo", "other", "nothing"])
def test_a_damaged_token_makes_no_folder(say, town, tmp_path, damage) -> None:
    token = town.token("riga")
    middle = len(token) // 2
    typo = "B" if token[middle] != "B" else "C"
    text = {
        "short": token[:-9],
        "typo": token[:middle] + typo + token[middle + 1 :],
        "other": "hanse9." + token[7:],
        "nothing": "",
    }[damage]
    assert "token" in say("edge", "join", text, "--dir", tmp_path / "edge")
    assert not (tmp_path / "edge").exists()


def test_every_single_slip_in_a_token_is_noticed(town) -> None:
    """A wrong pinned key would show only weeks later, as releases that nobody believes."""
    token = town.token("riga")
    for place in range(7, len(token), 41):
        slip = token[:place] + ("A" if token[place] != "A" else "E") + token[place + 1 :]
        with pytest.raises(edge.cli.FederationError, match="damaged"):
            Token.from_text(slip)


def test_a_token_works_once(say, town, tmp_path) -> None:
    token = town.token("bruges")
    assert edge.cli.main(["join", token, "--dir", str(tmp_path / "first")]) == 0
    refused = say("edge", "join", token, "--dir", tmp_path / "second")
    assert "wrong, used or expired" in refused
    assert not (tmp_path / "second" / "edge.toml").exists()


def test_the_same_edge_may_come_again_after_a_crash(town, tmp_path) -> None:
    token = town.token("lubeck")
    assert edge.cli.main(["join", token, "--dir", str(tmp_path)]) == 0
    before = Keys.load(tmp_path / "keys").member(EdgeId("lubeck"))
    (tmp_path / "edge.toml").unlink()
    assert edge.cli.main(["join", token, "--dir", str(tmp_path)]) == 0
    assert Keys.load(tmp_path / "keys").member(EdgeId("lubeck")) == before


def test_a_removed_site_does_not_come_back_with_its_old_token(say, town, tmp_path) -> None:
    token = town.token("danzig")
    assert edge.cli.main(["join", token, "--dir", str(tmp_path)]) == 0
    town.registry.remove_site(EdgeId("danzig"))
    (tmp_path / "edge.toml").unlink()
    assert "wrong, used or expired" in say("edge", "join", token, "--dir", tmp_path)
    assert "danzig" not in [member.edge for member in town.registry.sites()]


def test_an_expired_token(say, town, tmp_path) -> None:
    token = town.token("kiel")
    town.now = NOW + timedelta(hours=2)
    try:
        assert "expired" in say("edge", "join", token, "--dir", tmp_path)
    finally:
        town.now = NOW


def test_a_folder_joins_once(say, town, shop) -> None:
    before = (shop / "edge.toml").read_bytes()
    assert "has joined a federation already" in say("edge", "join", town.token("oslo"), "--dir", shop)
    assert (shop / "edge.toml").read_bytes() == before


def test_a_center_of_another_federation_is_not_talked_to(say, town, tmp_path) -> None:
    genuine = Token.from_text(town.token("turku"))
    other = authority.create(FederationId("rhein"), key=authority.new_key(), now=NOW)
    values = {name: getattr(genuine, name) for name in genuine.__slots__}
    forged = Token(**{**values, "authority": other.public_bytes(Encoding.DER)})
    assert "is not of federation hanse" in say("edge", "join", forged.to_text(), "--dir", tmp_path)
    assert not (tmp_path / "edge.toml").exists()


def test_a_center_that_is_away(say, tmp_path) -> None:
    token = inviting.invite(found(tmp_path / "center"), "visby", life=timedelta(hours=1), now=NOW)
    assert "does not answer" in say("edge", "join", token, "--dir", tmp_path / "edge")


@pytest.mark.parametrize("site", ["center", "Ä", "", "a b", "x" * 64, "../x"])
def test_names_that_no_site_may_have(say, town, site) -> None:
    say("center", "enroll", site, "--dir", town.folder)


def test_a_site_that_has_joined_gets_no_second_token(say, town, shop) -> None:
    assert "has joined already" in say("center", "enroll", shop.name, "--dir", town.folder)


def test_removing_who_never_joined(say, town) -> None:
    assert "no site nobody has joined" in say("center", "remove", "nobody", "--dir", town.folder)


@pytest.mark.parametrize("host", ["käse.example", "", "x" * 65])
def test_a_host_that_no_certificate_can_hold(say, tmp_path, host) -> None:
    assert "cannot stand in a certificate" in say("center", "init", "hanse", "--dir", tmp_path, "--host", host)
    assert not (tmp_path / "center.toml").exists()
    assert center_cli.main(["init", "hanse", "--dir", str(tmp_path)]) == 0  # and the next try succeeds


def test_a_federation_with_the_longest_name(tmp_path) -> None:
    assert center_cli.main(["init", "h" * 63, "--dir", str(tmp_path)]) == 0


def test_a_federation_is_founded_once(say, town) -> None:
    before = (town.folder / "keys" / "center.key").read_bytes()
    assert "holds a center already" in say("center", "init", "hanse", "--dir", town.folder)
    assert (town.folder / "keys" / "center.key").read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        ["serve"],
        ["status"],
        ["key", "new", "x"],
        ["key", "list"],
        ["key", "revoke", "x"],
        ["query", "u"],
        ["import", "events", "f.csv"],
    ],
)
def test_no_edge_in_this_folder(say, tmp_path, words) -> None:
    assert "is no edge (run hanse-edge join TOKEN first)" in say("edge", *words, "--dir", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["serve"], ["status"], ["enroll", "visby"], ["train"], ["admit"], ["doctor"]])
def test_no_center_in_this_folder(say, tmp_path, words) -> None:
    assert "is no center" in say("center", *words, "--dir", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[serving]\nprot = 1\n", "serving.prot"),
        ("[serving]\nport = 70000\n", "serving.port"),
        ("[serving]\nport = 'high'\n", "serving.port"),
        ("[store]\ndurability = 'some'\n", "store.durability"),
        ("[training]\nniceness = -20\n", "training.niceness"),
        ("[serving\n", "is no TOML"),
        ("x = 1\n", "x: "),
    ],
)
def test_an_edge_toml_that_is_wrong(say, tmp_path, text, why) -> None:
    good = "[site]\nname='a'\nfederation='f'\n[center]\ngateway='https://x'\nbroker_host='x'\nbroker_port=1\n"
    (tmp_path / "edge.toml").write_text(text if text.startswith("x") else good + text)
    if text.startswith("x"):
        (tmp_path / "edge.toml").write_text(text + good)
    assert why in say("edge", "status", "--dir", tmp_path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[rounds]\nminimum = 1\n", "rounds.minimum"),
        ("[gateway]\nport = 0\n", "gateway.port"),
        ("[model]\nserver_momentum = 1.0\n", "model.server_momentum"),
        ("[gate]\nmin_ndcg = 97\n", "gate.min_ndcg"),
        ("[[rounds", "is no TOML"),
    ],
)
def test_a_center_toml_that_is_wrong(say, tmp_path, text, why) -> None:
    (tmp_path / "center.toml").write_text("federation = 'hanse'\n" + text)
    assert why in say("center", "status", "--dir", tmp_path)


def test_a_file_that_is_not_text(say, tmp_path) -> None:
    (tmp_path / "center.toml").write_bytes(b"\xff\xfe")
    assert "cannot be read" in say("center", "status", "--dir", tmp_path)


def test_an_environment_that_is_wrong(say, town, monkeypatch) -> None:
    monkeypatch.setenv("HANSE_CENTER_GATEWAY", "door")
    assert "environment" in say("center", "status", "--dir", town.folder)


def test_a_port_in_use(say, shop) -> None:
    settings = edge.cli.Path(shop / "edge.toml").read_text()
    port = int(settings.split("[serving]\nport = ")[1].split()[0])
    with socket.create_server(("127.0.0.1", port)):
        assert f"cannot listen on 127.0.0.1:{port}" in say("edge", "serve", "--dir", shop)


def test_two_that_serve_one_folder(say, shop) -> None:
    with (shop / "serve.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "serves in" in say("edge", "serve", "--dir", shop)


def test_two_centers_in_one_folder(say, town) -> None:
    with (town.folder / "serve.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "a center serves in" in say("center", "serve", "--dir", town.folder)


def test_a_truncated_store(say, shop) -> None:
    with Store.open(shop / "store.db"):
        pass
    path = shop / "store.db"
    path.write_bytes(path.read_bytes()[:3000])
    before = path.read_bytes()
    (shop / "e.csv").write_text(EVENTS)
    say("edge", "import", "events", shop / "e.csv", "--dir", shop)
    say("edge", "serve", "--dir", shop)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("e.csv", b"\x00\xff\xfe\x00"),
        ("e.csv", b"colour,shape\nred,round\n"),
        ("e.csv", b""),
        ("e.parquet", b"PAR1 no"),
        ("e.xlsx", b"PK"),
    ],
)
def test_a_file_that_cannot_be_imported(say, shop, name, data) -> None:
    (shop / name).write_bytes(data)
    say("edge", "import", "events", shop / name, "--dir", shop)
    with Store.open(shop / "store.db") as store:
        assert len(store.behaviour().item) == 0


def test_importing_what_is_not_there(say, shop) -> None:
    assert "there is no file" in say("edge", "import", "events", shop / "none.csv", "--dir", shop)
    assert "cannot be imported" in say("edge", "import", "dreams", shop / "none.csv", "--dir", shop)


def test_asking_an_edge_that_does_not_run(say, shop) -> None:
    assert "no edge answers" in say("edge", "query", "anna", "--dir", shop)
    assert "no edge answers" in say("edge", "status", "--dir", shop)


def test_asking_something_that_is_no_edge(say, shop) -> None:
    """Another web server on the port answers with a page."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_words):
            pass

    port = int((shop / "edge.toml").read_text().split("[serving]\nport = ")[1].split()[0])
    with http.server.HTTPServer(("127.0.0.1", port), Page) as page:
        thread = threading.Thread(target=page.serve_forever)
        thread.start()
        try:
            assert "is no edge" in say("edge", "status", "--dir", shop)
        finally:
            page.shutdown()
            thread.join()


def test_books_that_are_no_books(say, tmp_path) -> None:
    folder = found(tmp_path)
    (folder / "registry.db").write_bytes(b"no database" * 500)
    assert "registry.db" in say("center", "status", "--dir", folder)


def test_a_center_without_its_keys(say, tmp_path) -> None:
    folder = found(tmp_path)
    (folder / "keys" / "center.key").unlink()
    assert "center.key is missing" in say("center", "enroll", "visby", "--dir", folder)


def test_admitting_before_anybody_has_joined(say, tmp_path) -> None:
    assert "no site has joined yet" in say("center", "admit", "--dir", found(tmp_path))


def _findings(module, folder, settings, now):
    return {finding.check: finding for finding in module.examine(folder, settings, now=now)}


def test_the_edges_doctor_names_what_is_wrong(town, shop) -> None:
    from edge import doctor, settings

    loaded = settings.load(shop)
    found_now = _findings(doctor, shop, loaded, NOW)
    assert found_now["keys"].well
    assert found_now["certificate"].well
    assert "503" in found_now["gateway and clock"].problem  # there is no SuperLink behind this gateway
    assert str(town.settings.broker.port) in found_now["broker"].problem
    (shop / "keys" / "node.key").chmod(0o644)
    later = _findings(doctor, shop, loaded, NOW + timedelta(days=400))
    assert later["keys"].problem == "others can read node.key"
    assert "certificate ends on" in later["certificate"].problem
    (shop / "keys" / "node.key").unlink()
    assert "node.key cannot be read" in _findings(doctor, shop, loaded, NOW)["keys"].problem


def test_the_centers_doctor_names_what_is_wrong(tmp_path) -> None:
    from center import doctor

    folder = found(tmp_path)
    loaded = center_settings.load(folder)
    first = _findings(doctor, folder, loaded, NOW)
    assert {name for name, finding in first.items() if finding.well} >= {"keys", "certificate", "books"}
    assert first["offline keys"].fix.startswith("move offline/")
    assert first["gateway and clock"].fix == "hanse-center serve"
    assert first["broker"].fix == "hanse-center broker"
    (folder / "keys" / "ca.key").chmod(0o640)
    (folder / "registry.db").write_bytes(b"no database" * 500)
    later = _findings(doctor, folder, loaded, NOW + timedelta(days=390))
    assert later["keys"].problem == "others can read ca.key"
    assert "certificate of gateway and broker ends on" in later["certificate"].problem
    assert "not a database" in later["books"].problem


def test_a_wrong_clock_is_found(tmp_path, monkeypatch) -> None:
    from center import doctor

    folder = found(tmp_path)
    answer = SimpleNamespace(is_success=True, headers={"date": NOW.strftime("%a, %d %b %Y %H:%M:%S GMT")})
    monkeypatch.setattr(httpx.Client, "get", lambda _client, _url: answer)
    loaded = center_settings.load(folder)
    assert _findings(doctor, folder, loaded, NOW)["gateway and clock"].well
    wrong = _findings(doctor, folder, loaded, NOW + timedelta(minutes=5))["gateway and clock"]
    assert (wrong.problem, wrong.fix) == ("the gateway's clock differs from this one", "switch NTP on")
