import io
import os
import re
import signal
import threading
import time
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
from flwr.proto.control_pb2 import ListRunsRequest, StartRunRequest, StopRunRequest
from flwr.proto.fab_pb2 import Fab

import center.rounds.flower_app
from center.rounds.superlink import SuperLink
from protocol.errors import BadInputError, NotAdmittedError, UnavailableError
from protocol.transport import Reply, Request


def test_five_megabytes_come_and_go_through_the_gateway_as_they_are(crew, gateway, rounds):
    weights = os.urandom(5_000_003)
    edges = [crew.hire("shop-a", url=gateway.url), crew.hire("shop-b", url=gateway.url)]
    transport = crew.transport()
    replies = rounds.ask(transport, *edges, weights=weights)
    assert [sha256(replies[edge].body[8:]).digest() for edge in edges] == 2 * [sha256(weights).digest()]


def test_an_edge_that_comes_late_still_gets_its_request(crew, rounds):
    early, late = crew.hire("early"), crew.admit("late")
    transport = crew.transport()
    assert set(rounds.ask(transport, early, late, timeout=1)) == {early}
    assert transport.online() == {early}
    crew.hire("late")
    assert set(rounds.collect(transport, late)) == {late}


def test_an_edge_that_vanished_with_a_request_in_hand_is_an_error(crew, rounds):
    taken = threading.Event()
    leave = threading.Event()

    def never(_request: Request) -> Reply:
        taken.set()
        leave.wait(30)
        raise BadInputError("too late")

    edge = crew.hire("shop-a", never)
    transport = crew.transport(patience=0.5)
    transport.send({edge: Request(action="test", document=b"", weights=b"")})
    while not taken.is_set():
        transport.receive(timeout=0.1)
    crew.center.unregister(crew.public_keys[edge])
    replies = rounds.collect(transport, edge)
    leave.set()
    assert "went away" in replies[edge].error


def test_a_refusal_is_told_and_a_fault_names_no_data(crew, rounds):
    def refuse(_request: Request) -> Reply:
        raise BadInputError("no customer has bought\nanything")

    def fail(_request: Request) -> Reply:
        raise RuntimeError("customer 4711 bought wine")

    refusing, failing = crew.hire("refusing", refuse), crew.hire("failing", fail)
    replies = rounds.ask(crew.transport(), refusing, failing)
    assert replies[refusing].error == "no customer has bought"
    assert replies[failing].error == "the edge failed with RuntimeError"


def test_a_run_that_somebody_stopped_is_replaced_and_the_request_answered(crew, rounds):
    edge = crew.admit("shop-a")
    transport = crew.transport()
    assert rounds.ask(transport, edge, timeout=0.2) == {}
    control = crew.center._control
    for run in control.ListRuns(ListRunsRequest()).run_dict.values():
        if run.status.status != "finished":
            control.StopRun(StopRunRequest(run_id=run.run_id))
    crew.hire("shop-a")
    assert rounds.collect(transport, edge)[edge].body


def test_a_round_survives_the_crash_of_superlink(crew, superlink, rounds):
    working, go_on = threading.Event(), threading.Event()

    def slowly(request: Request) -> Reply:
        working.set()
        go_on.wait(30)
        return Reply(body=request.weights)

    edge = crew.hire("shop-a", slowly)
    transport = crew.transport()
    transport.send({edge: Request(action="test", document=b"", weights=b"as sent")})
    while not working.is_set():
        transport.receive(timeout=0.1)
    os.kill(superlink.pid, signal.SIGKILL)
    os.waitid(os.P_PID, superlink.pid, os.WEXITED | os.WNOWAIT)
    assert transport.receive(timeout=0.2) == []
    superlink.watch()
    go_on.set()
    assert rounds.collect(transport, edge)[edge].body == b"as sent"


def test_a_center_that_comes_back_gets_the_answer_its_predecessor_asked_for(crew, superlink, papers, rounds):
    asked = []
    working, go_on = threading.Event(), threading.Event()

    def slowly(request: Request) -> Reply:
        asked.append(request)
        working.set()
        go_on.wait(30)
        return Reply(body=request.weights)

    edge = crew.hire("shop-a", slowly)
    request = Request(action="test", document=b"", weights=b"as sent")
    before = crew.transport()
    before.send({edge: request})
    while not working.is_set():
        before.receive(timeout=0.1)
    successor = type(crew.center)(address=superlink.address, ca_certificate=papers.ca, secret=superlink.secret())
    after = successor.transport(crew.public_keys, poll=0.05)
    after.send({edge: request})
    go_on.set()
    assert rounds.collect(after, edge)[edge].body == b"as sent"
    assert len(asked) == 1
    successor.close()


def test_a_superlink_that_stays_away_is_reported(crew, papers, tmp_path):
    edge = crew.admit("shop-a")
    link = SuperLink(folder=tmp_path, certificate=papers.certificate, key=papers.key, ca_certificate=papers.ca)
    link.start()
    other = type(crew.center)(address=link.address, ca_certificate=papers.ca, secret=link.secret())
    transport = other.transport({}, outage=0.3)
    assert transport.receive(timeout=0.1) == []
    link.stop(grace=0)
    assert transport.receive(timeout=0.1) == []
    with pytest.raises(UnavailableError, match="SuperLink"):
        transport.receive(timeout=1.0)
    with pytest.raises(UnavailableError, match="SuperLink"):
        other.register(crew.public_keys[edge])
    other.close()


def _hostile_app(marker) -> bytes:
    code = f"from pathlib import Path\nPath({str(marker)!r}).write_text('executed')\n"
    project = (
        '[project]\nname = "evil"\nversion = "1.0.0"\n[tool.flwr.app]\npublisher = "mallory"\n'
        '[tool.flwr.app.components]\nserverapp = "evil:app"\nclientapp = "evil:app"\n'
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("pyproject.toml", project)
        archive.writestr("evil.py", code)
        archive.writestr("evil/__init__.py", code)
    return buffer.getvalue()


def test_a_hostile_app_that_reaches_superlink_is_executed_by_nobody(crew, rounds, tmp_path):
    marker = tmp_path / "executed"
    content = _hostile_app(marker)
    control = crew.center._control

    def submit() -> int:
        return control.StartRun(StartRunRequest(fab=Fab(hash_str=sha256(content).hexdigest(), content=content))).run_id

    edge = crew.hire("shop-a")
    before = submit()
    transport = crew.transport()
    after = submit()
    assert rounds.ask(transport, edge)[edge].body
    time.sleep(1.0)  # an executor looks for work every second
    crew.center.open_run()
    assert rounds.ask(transport, edge)[edge].body
    states = {run_id: run.status for run_id, run in control.ListRuns(ListRunsRequest()).run_dict.items()}
    assert {states[before].status, states[after].status} == {"finished"}
    assert {states[before].sub_status, states[after].sub_status} <= {"stopped", "failed"}
    assert not marker.exists()


def test_admitting_twice_is_harmless_and_a_node_turned_away_is_gone_for_good(crew, rounds):
    edge = crew.hire("shop-a")
    crew.center.register(crew.public_keys[edge])
    transport = crew.transport()
    assert rounds.ask(transport, edge)[edge].body
    crew.center.unregister(crew.public_keys[edge])
    crew.center.unregister(crew.public_keys[edge])
    assert transport.online() == frozenset()
    with pytest.raises(NotAdmittedError, match="refuses this node's key"):
        crew.center.register(crew.public_keys[edge])


def test_flowers_inner_modules_are_imported_in_one_file_a_side():
    root = Path(center.rounds.flower_app.__file__).parents[2]
    found = {
        path.relative_to(root).as_posix()
        for package in ("center", "edge", "protocol", "simulation")
        for path in (root / package).rglob("*.py")
        for line in path.read_text().splitlines()
        if re.match(r"\s*(from|import) flwr\.(?!(app|clientapp|serverapp)(\s|$))", line)
    }
    # The third is what we compare ourselves with.
    assert found == {"center/rounds/flower_app.py", "edge/rounds/flower_node.py", "simulation/bench/flower.py"}
