import time

import pytest

from protocol.errors import BadInputError, BadSignatureError, NotAdmittedError, UnavailableError, UntrustedError
from protocol.identity import Label, sign_document
from protocol.release import Place

# paho leaves the socket of a failed TLS handshake to the garbage collector.
LEAKY = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_an_edge_hears_of_rounds_and_releases(road, heard, eventually):
    voice = road.publisher()
    road.edge("luebeck", heard=heard).wait_until_connected(seconds=10)
    voice.wake({"round": 4, "campaign": 1, "until_ms": 5})
    road.publish(voice, Place.CATALOGUE, road.catalogue())
    assert eventually(lambda: heard.wakes) == [{"round": 4, "campaign": 1, "until_ms": 5}]
    assert heard.release.wait(5)
    assert heard.troubles == []


def test_looking_at_a_release_does_not_announce_it_again(road, heard):
    """The broker repeats what it retains to everyone who reads it; an edge would look again and again, for ever."""
    voice = road.publisher()
    road.publish(voice, Place.CATALOGUE, road.catalogue())
    road.admit(voice, "luebeck")
    edge = road.edge("luebeck", heard=heard)
    assert heard.release.wait(5)
    heard.release.clear()
    edge.newest()
    assert not heard.release.wait(1.0)


def test_what_was_said_before_an_edge_came_is_heard(road, heard, eventually):
    road.publisher().wake({"round": 4})
    road.edge("luebeck", heard=heard)
    assert eventually(lambda: heard.wakes) == [{"round": 4}]


def test_a_wake_that_the_center_did_not_sign_wakes_nobody(road, heard, eventually):
    road.edge("luebeck", heard=heard).wait_until_connected(seconds=10)
    owner = road.as_owner_of_the_broker()
    for forged in (b"{}", sign_document(Label.WAKE, {"round": 9}, key=road.root_key)):
        owner.deliver([(road.topics.round, forged)], window=1, seconds=5)
    eventually(lambda: len(heard.troubles) == 2)
    assert isinstance(heard.troubles[1], BadSignatureError)
    assert heard.wakes == []


def test_the_center_sees_what_an_edge_runs_and_when_it_leaves(road, eventually):
    voice = road.publisher()
    edge = road.edge("luebeck")
    edge.report({"bundle": 3})
    expected = {"luebeck": {"edge": "luebeck", "online": True, "bundle": 3}}
    eventually(lambda: voice.statuses() == expected)
    edge.stop()
    eventually(lambda: voice.statuses() == {"luebeck": {"edge": "luebeck", "online": False}})


def test_an_edge_that_dies_without_a_word_is_seen_as_offline(road, eventually):
    voice = road.publisher()
    edge = road.edge("luebeck")
    edge.report({"bundle": 3})
    eventually(lambda: voice.statuses().get("luebeck", {}).get("online"))
    edge._connection._client.loop_stop()
    edge._connection._client.socket().close()
    eventually(lambda: not voice.statuses()["luebeck"]["online"])


def test_the_newest_status_wins_and_not_each_is_sent(road, eventually):
    voice = road.publisher()
    edge = road.edge("luebeck")
    for number in range(200):
        edge.report({"bundle": number})
    eventually(lambda: voice.statuses().get("luebeck", {}).get("bundle") == 199)


def test_an_edge_comes_back_after_the_broker_was_away_and_says_so_again(road, heard, eventually):
    voice = road.publisher()
    edge = road.edge("luebeck", heard=heard)
    edge.report({"bundle": 3})
    eventually(lambda: "luebeck" in voice.statuses())
    road.broker.stop()
    eventually(lambda: not edge.connected)
    assert isinstance(edge.trouble, UnavailableError)
    road.start_broker()
    edge.wait_until_connected(seconds=15)
    eventually(lambda: voice.connected, seconds=15)
    voice.wake({"round": 5})
    eventually(lambda: {"round": 5} in heard.wakes)
    eventually(lambda: voice.statuses()["luebeck"]["online"])


def test_an_edge_starts_without_a_broker(road):
    road.broker.stop()
    edge = road.edge("luebeck")
    with pytest.raises(UnavailableError, match="cannot be reached"):
        edge.wait_until_connected(seconds=0.5)
    road.start_broker()
    edge.wait_until_connected(seconds=15)


@LEAKY
def test_a_certificate_of_another_federation_is_refused_and_said_so(road, other_road):
    foreign = other_road.papers("luebeck")
    edge = road.edge("luebeck", certificate=foreign["certificate"], key=foreign["key"])
    with pytest.raises((NotAdmittedError, UnavailableError), match="certificate"):
        edge.wait_until_connected(seconds=2)


@LEAKY
def test_a_broker_of_another_federation_is_not_believed(road, other_road):
    edge = road.edge("luebeck", port=other_road.port)
    with pytest.raises(UntrustedError, match="does not show a certificate of this federation"):
        edge.wait_until_connected(seconds=10)


def test_missing_papers_are_said(road):
    with pytest.raises(BadInputError, match="cannot be used"):
        road.edge("luebeck", key=road.folder / "nowhere.key", start=False)


def test_stopping_is_quick_with_and_without_a_broker(road):
    edges = [road.edge("luebeck", start=False), road.edge("bremen", start=False)]
    for edge in edges:
        edge.start()
        edge.wait_until_connected(seconds=10)
    road.broker.stop()
    began = time.monotonic()
    for edge in edges:
        edge.stop()
    assert time.monotonic() - began < 5
