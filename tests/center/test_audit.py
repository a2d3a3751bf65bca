"""The center's audit log: complete, chained, and checked by a command."""

import json
import sqlite3
from contextlib import closing

import pytest
import structlog

from center import founding
from center.cli import main
from center.registry import Registry
from protocol.audit import GENESIS, check_chain
from protocol.errors import UntrustedError
from protocol.identity import EdgeId, FederationId, Member


def member(name):
    return Member(edge=EdgeId(name), identity=b"i" * 32, seal=b"s", node=b"n")


@pytest.fixture(autouse=True)
def _log_of_its_own():
    yield
    structlog.reset_defaults()


@pytest.fixture
def folder(tmp_path):
    from datetime import UTC, datetime

    addresses = founding.Addresses(host="127.0.0.1", gateway_port=1, superlink_port=2, broker_port=3)
    founding.found(tmp_path / "center", federation=FederationId("hanse"), addresses=addresses, now=datetime.now(UTC))
    return tmp_path / "center"


@pytest.fixture
def registry(folder):
    clock = iter(range(1_000, 10_000))
    with closing(Registry(folder / "registry.db", now_ms=lambda: next(clock))) as registry:
        yield registry


def lived(registry):
    registry.add_site(member("visby"), certificate="pem", now_ms=1)
    registry.ask_campaign("spring", submodel="recommend", rounds=1, now_ms=1)
    registry.set_campaign("spring", state="running")
    number = registry.begin_round("spring", purpose="train", cohort=(EdgeId("visby"),), now_ms=1)
    registry.end_round(number, seconds=1.0, outcome="summed", figures={"step": 1.0})
    lost = registry.begin_round("spring", purpose="train", cohort=(EdgeId("visby"),), now_ms=1)
    registry.end_round(lost, seconds=1.0, outcome="too few", figures={})
    registry.set_campaign("spring", state="finished")
    registry.record("key rotated", role="releases")
    registry.remove_site(EdgeId("visby"))


def test_what_happens_is_told_in_order(registry):
    assert registry.audit_head() == GENESIS
    lived(registry)
    entries = registry.audit_log()
    assert [entry.kind for entry in entries] == [
        "joined",
        "campaign running",
        "round summed",
        "round lost",
        "campaign finished",
        "key rotated",
        "removed",
    ]
    assert check_chain(entries) == registry.audit_head()
    assert entries[2].facts == {"round": 1, "campaign": "spring", "purpose": "train"}


def test_nothing_is_told_of_what_was_not_done(registry):
    registry.begin_round("spring", purpose="train", cohort=(EdgeId("visby"),), now_ms=1)
    registry.settle_round(1)
    registry.settle_round(1)
    assert [entry.kind for entry in registry.audit_log()] == ["round summed"]

    def fails():
        with registry.transaction() as db:
            registry.note(db, "never happened")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert len(registry.audit_log()) == 1


def test_two_processes_write_one_chain(registry, folder):
    with closing(Registry(folder / "registry.db")) as other:
        for number in range(10):
            (registry if number % 2 else other).record("step", number=number)
    assert [entry.facts["number"] for entry in registry.audit_log()] == list(range(10))
    check_chain(registry.audit_log())


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM audit WHERE seq = 3",
        "UPDATE audit SET entry = replace(entry, 'visby', 'luebeck') WHERE seq = 1",
        "UPDATE audit SET seq = 99 WHERE seq = 2",
        "DELETE FROM audit WHERE seq = 1",
    ],
)
def test_a_rewritten_log_is_found_out(registry, folder, capsys, change):
    lived(registry)
    with closing(sqlite3.connect(folder / "registry.db")) as db, db:
        # Whoever rewrites it keeps the form: bytes again.
        db.execute(change)
        db.execute("UPDATE audit SET entry = CAST(entry AS BLOB)")
    with pytest.raises(UntrustedError, match="does not follow"):
        check_chain(registry.audit_log())
    assert main(["audit", "--dir", str(folder)]) == 1
    assert "somebody has changed it" in capsys.readouterr().err


def test_a_log_cut_short_is_found_out_by_a_head_that_was_noted_elsewhere(registry, folder, capsys):
    lived(registry)
    head, words = registry.audit_head(), ["audit", "--dir", str(folder)]
    assert main([*words, "--head", head, "--json", "--last", "2"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["entries"], said["head"], [one["kind"] for one in said["newest"]]) == (
        7,
        head,
        ["key rotated", "removed"],
    )
    with registry.transaction() as db:
        db.execute("DELETE FROM audit WHERE seq = 7")
    assert main(words) == 0
    assert "6 entries" in capsys.readouterr().out
    assert main([*words, "--head", head]) == 1
    assert f"does not hold entry {head[:12]}" in capsys.readouterr().err


def test_an_older_registry_gets_the_tables(tmp_path):
    with closing(sqlite3.connect(tmp_path / "registry.db")) as db, db:
        db.execute("CREATE TABLE sites (edge TEXT PRIMARY KEY, member TEXT, certificate TEXT, joined_ms INTEGER)")
    with closing(Registry(tmp_path / "registry.db")) as registry:
        registry.record("step")
        assert len(registry.audit_log()) == 1
        assert registry.read("SELECT * FROM rollouts") == []
