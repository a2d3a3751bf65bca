import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import Context, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from structlog.testing import capture_logs

from center.rounds.flower_app import app as server
from center.rounds.transport import GridTransport
from edge.rounds.flower_node import app as client
from edge.rounds.flower_node import build_client_app
from protocol.errors import BadInputError
from protocol.identity import EdgeId
from protocol.transport import Reply, Request
from simulation.network import InProcessGrid, Site


def _echo(request: Request) -> Reply:
    return Reply(body=request.weights)


def _refuse(_request: Request) -> Reply:
    raise BadInputError("not today")


def _site(answer=_echo) -> Site:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    return Site(key=public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), app=build_client_app(answer))


def _transport(sites, **options) -> GridTransport:
    grid = InProcessGrid(sites, **options)
    return GridTransport(grid, edges={edge: site.key for edge, site in sites.items()}, poll=0)


def test_two_hundred_sites_answer_without_a_port():
    sites = {EdgeId(f"shop-{number}"): _site() for number in range(200)}
    transport = _transport(sites)
    weights = os.urandom(1000)
    transport.send(dict.fromkeys(sites, Request(action="test", document=b"", weights=weights)))
    replies = dict(transport.receive(timeout=0))
    assert set(replies) == set(sites) == transport.online()
    assert {reply.body for reply in replies.values()} == {weights}


def test_a_lost_message_is_never_answered_and_a_refusal_is_an_error():
    sites = {EdgeId("lost"): _site(), EdgeId("refusing"): _site(_refuse), EdgeId("well"): _site()}
    transport = _transport(sites, delivers=lambda number: number != 0)
    transport.send(dict.fromkeys(sites, Request(action="test", document=b"", weights=b"w")))
    replies = dict(transport.receive(timeout=0))
    assert replies == {EdgeId("refusing"): Reply(error="not today"), EdgeId("well"): Reply(body=b"w")}
    assert transport.receive(timeout=0) == []
    transport.send({EdgeId("lost"): Request(action="test", document=b"", weights=b"again")})
    assert transport.receive(timeout=0) == [("lost", Reply(body=b"again"))]


def test_nobody_is_waited_for_once_a_round_is_over():
    sites = {EdgeId("shop"): _site()}
    transport = _transport(sites)
    transport.send({EdgeId("shop"): Request(action="test", document=b"", weights=b"")})
    transport.forget()
    assert transport.receive(timeout=0) == []


def test_a_second_run_is_not_pretended():
    with pytest.raises(NotImplementedError):
        InProcessGrid({}).set_run(None)


@pytest.fixture
def task():
    """What Flower sets before it runs a ServerApp, and nobody else."""
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    yield
    TaskIdentity._task_id = TaskIdentity._run_id = TaskIdentity._node_id = None


@pytest.mark.usefixtures("task")
def test_flowers_own_engine_can_call_the_roll():
    sites = {EdgeId("ours"): Site(key=_site().key, app=client), EdgeId("refusing"): _site(_refuse)}
    with capture_logs() as lines:
        server(InProcessGrid(sites), Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={}))
    assert [(line["event"], line["here"]) for line in lines] == [("roll call", True), ("roll call", False)]
