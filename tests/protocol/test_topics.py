import pytest

from protocol.errors import MalformedMessageError
from protocol.identity import EdgeId, FederationId
from protocol.topics import CENTER, Subject, Topics, may_read, may_write, parse

FEDERATION = FederationId("hanse")
TOPICS = Topics(FEDERATION)
LUEBECK, BREMEN = EdgeId("luebeck"), EdgeId("bremen")
BLOCK = TOPICS.block("ab" * 32)
COMMON = [TOPICS.round, TOPICS.tuf("root.json"), TOPICS.tuf(f"canary/{'0' * 64}.3.json"), BLOCK]


@pytest.mark.parametrize("topic", [*COMMON, TOPICS.key(LUEBECK), TOPICS.status(LUEBECK), TOPICS.inventory])
def test_every_topic_can_be_taken_apart(topic):
    parsed = parse(topic)
    assert parsed.federation == FEDERATION
    assert topic == "/".join(filter(None, ["hanse/1", FEDERATION, parsed.subject, parsed.name]))


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "hanse",
        "hanse/2/hanse/round",
        "hanse/1/hanse",
        "hanse/1/hanse/",
        "hanse/1/Hanse/round",
        "hanse/1/hanse/round/x",
        "hanse/1/hanse/key",
        "hanse/1/hanse/key/",
        "hanse/1/hanse/key/+",
        "hanse/1/hanse/#",
        "hanse/1/hanse/block/ab",
        "hanse/1/hanse/block/" + "G" * 64,
        "hanse/1/hanse/tuf/../../etc/passwd",
        "hanse/1/hanse/tuf/a/b/c",
        "hanse/1/hanse/tuf/.hidden",
        "hanse/1/hanse/status/a/b",
        "hanse/1/hanse/gossip",
    ],
)
def test_what_is_no_topic_of_ours_is_refused(topic):
    with pytest.raises(MalformedMessageError):
        parse(topic)


@pytest.mark.parametrize("topic", COMMON)
def test_an_edge_reads_what_is_common_and_writes_none_of_it(topic):
    assert may_read(LUEBECK, topic, federation=FEDERATION)
    assert not may_write(LUEBECK, topic, federation=FEDERATION)


def test_an_edge_reads_its_own_key_and_nobody_elses():
    assert may_read(LUEBECK, TOPICS.key(LUEBECK), federation=FEDERATION)
    assert not may_read(LUEBECK, TOPICS.key(BREMEN), federation=FEDERATION)


def test_an_edge_writes_its_own_status_and_nobody_elses():
    assert may_write(LUEBECK, TOPICS.status(LUEBECK), federation=FEDERATION)
    assert not may_write(LUEBECK, TOPICS.status(BREMEN), federation=FEDERATION)
    assert not may_read(LUEBECK, TOPICS.status(BREMEN), federation=FEDERATION)


@pytest.mark.parametrize("wildcard", ["#", "hanse/1/hanse/#", "hanse/1/hanse/key/+", "+/1/hanse/round", "$SYS/#"])
def test_an_edge_uses_no_wildcards(wildcard):
    assert not may_read(LUEBECK, wildcard, federation=FEDERATION)


def test_an_edge_does_not_see_the_centers_notebook():
    assert not may_read(LUEBECK, TOPICS.inventory, federation=FEDERATION)


def test_the_center_rules_its_own_federation_only():
    other = Topics(FederationId("rhein"))
    assert may_read(CENTER, TOPICS.statuses(), federation=FEDERATION)
    assert may_write(CENTER, BLOCK, federation=FEDERATION)
    assert not may_read(CENTER, other.statuses(), federation=FEDERATION)
    assert not may_write(CENTER, other.round, federation=FEDERATION)
    assert not may_read(LUEBECK, other.round, federation=FEDERATION)


def test_every_subject_has_a_topic():
    built = [*COMMON, TOPICS.key(LUEBECK), TOPICS.status(LUEBECK), TOPICS.inventory]
    assert {parse(topic).subject for topic in built} == set(Subject)
