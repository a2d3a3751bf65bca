"""The edge's clock is one year wrong: nobody can turn this machine's, so everything else is a year off instead."""

from datetime import UTC, datetime, timedelta

import pytest

from protocol.errors import BadSignatureError, ExpiredReleaseError, UntrustedError
from protocol.release import Kind, Place

YEAR = timedelta(days=365)
LEAKY = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def founded(make_road):
    """A federation that was founded at some time; its broker runs."""

    def found(now):
        road = make_road(now=now)
        road.start_broker()
        return road

    return found


def test_a_clock_one_year_fast_installs_nothing_and_serves_on(town):
    """A year later all that was signed is too old; what is installed goes on."""
    town.road.now -= YEAR
    town.publish(2)
    with pytest.raises(ExpiredReleaseError) as caught:
        town.luebeck.newest()
    assert "check this machine's clock" in caught.value.line()
    assert town.serves(1)


def test_a_release_that_was_offered_before_the_clock_jumped_is_not_installed_after(town):
    town.publish(2)
    fetched = town.luebeck.fetch(town.bundle())
    with pytest.raises(ExpiredReleaseError):
        town.here.install(fetched, now=datetime.now(UTC) + YEAR)
    assert town.serves(1)


def test_a_clock_one_year_fast_where_papers_are_still_good(founded):
    """The same with everything of the federation a year old, certificates too; the edge never installs anything."""
    road = founded(datetime.now(UTC) - YEAR)
    voice = road.publisher()
    road.admit(voice, "luebeck")
    road.publish(voice, Place.CATALOGUE, road.catalogue())
    edge = road.edge("luebeck")
    edge.wait_until_connected(seconds=10)
    with pytest.raises(ExpiredReleaseError):
        edge.newest()
    assert road.installer("luebeck").catalogue() is None


@LEAKY
def test_a_clock_one_year_slow_before_the_papers_are_good_says_so(founded):
    road = founded(datetime.now(UTC) + YEAR)
    edge = road.edge("luebeck")
    with pytest.raises(UntrustedError, match="not yet valid") as caught:
        edge.wait_until_connected(seconds=10)
    assert "check this machine's clock" in caught.value.line()


def test_a_clock_one_year_slow_installs_what_is_signed(town):
    town.road.now += YEAR
    town.publish(2)
    town.take_up()
    assert town.serves(2)


def test_a_clock_one_year_slow_installs_only_what_is_signed(town):
    town.road.now += YEAR
    town.publish(2)
    chain = town.repository.chain
    name = chain.file_name("wide")
    forged = town.sign_as_thief([town.road.online.timestamp], "wide", change=lambda _chain: None)
    town.put((topic, data) for topic, data in forged if topic == town.topics.tuf(name))
    with pytest.raises(BadSignatureError):
        town.luebeck.newest()
    assert town.serves(1)


def test_a_clock_that_is_set_back_forgets_no_number(town):
    """Old metadata that would be in force again by this clock are still older than what was seen."""
    old = town.on_broker()
    town.road.now += YEAR
    town.publish(2)
    town.take_up()
    town.put(old)
    with pytest.raises(Exception, match="older or mixed release metadata"):
        town.luebeck.newest()
    assert town.here.known(Kind.BUNDLE)
    assert town.serves(2)
