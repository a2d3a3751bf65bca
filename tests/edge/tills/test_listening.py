import asyncio

import orjson
import pytest
from structlog.testing import capture_logs

from edge.records.store import Store
from edge.serving.query import Query
from protocol.errors import BadInputError


def test_what_a_till_reports_is_known_to_the_next_answer(site, till):
    async def story():
        async with site:
            before = await site.service.recommend(Query(user="eva", limit=3))
            await site.publish(till.event("eva"))
            await till.until(site.events)
            after = await site.service.recommend(Query(user="eva", limit=3))
        assert before.reasons == ("unknown_user",)
        assert after.reasons == ()

    asyncio.run(story())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda one, two: orjson.dumps([one, two]),
        lambda one, two: orjson.dumps({"events": [one, two]}),
        lambda one, two: orjson.dumps(one) + b"\n\n" + orjson.dumps(two) + b"\n",
    ],
    ids=["list", "events", "ndjson"],
)
def test_several_events_in_one_message(site, till, wrap):
    async def story():
        async with site:
            await site.publish(wrap(till.event("eva"), till.event("ben", item="i2")))
            await till.until(lambda: len(site.events()) == 2)
        assert site.events() == [(4, "eva", "i1"), (4, "ben", "i2")]
        assert site.refused() == []

    asyncio.run(story())


@pytest.mark.parametrize(
    ("poison", "why"),
    [
        (b"\xff\x00 no JSON", "not JSON"),
        (b"", "an empty message"),
        (b"17", "not a JSON object"),
        (b"[" * 900 + b"]" * 900, "nested too deeply"),
        ({"type": "purchase", "user": "eva"}, "item is missing"),
        ({"type": "bought", "user": "eva", "item": "i1"}, "type"),
        ({"type": "purchase", "user": "eva", "item": "i1", "colour": "red"}, "colour"),
        ({"type": "purchase", "user": "eva", "item": "never-listed"}, "item never-listed is not listed"),
        ({"type": "purchase", "user": "eva", "item": "i1", "time": "1970-01-01"}, "before the year 2000"),
    ],
)
def test_a_poison_message_is_put_aside_once_and_holds_nobody_back(site, till, poison, why):
    async def story():
        async with site:
            await site.publish(poison, till.event("eva"))
            await till.until(lambda: site.events() and site.refused())
        (kept,) = site.refused()
        assert why in kept["why"]
        async with site:  # acknowledged: it does not come back
            await site.publish(till.event("ben"))
            await till.until(lambda: len(site.events()) == 2)
        assert len(site.refused()) == 1
        assert site.outcomes() == {"event": 2, "rejected": 1}

    asyncio.run(story())


def test_one_bad_line_does_not_hold_back_its_neighbours(site, till):
    async def story():
        bad = till.event("cora", item="never-listed")
        async with site:
            await site.publish([till.event("eva"), bad, 17, till.event("ben")])
            await till.until(lambda: len(site.events()) == 2)
            await till.until(lambda: len(site.refused()) == 2)
        assert {name for _, name, _ in site.events()} == {"eva", "ben"}
        said = [orjson.loads(one["said"]) for one in site.refused()]
        assert said == [bad, 17]

    asyncio.run(story())


def test_a_message_that_comes_twice_counts_once_by_its_id_or_by_its_time(site, till):
    async def story():
        named, timed, bare = till.event(event_id="e1"), till.event(time=till.NOW), till.event()
        async with site:
            await site.publish(named, timed, bare, named, timed, bare, {**timed, "item": "i2"}, till.event("last"))
            await till.until(lambda: any(name == "last" for _, name, _ in site.events()))
        # The sale without an id or a time happened twice: nobody can know better.
        assert [item for _, name, item in site.events() if name == "eva"] == ["i1", "i1", "i1", "i1", "i2"]

    asyncio.run(story())


def test_what_is_retained_happened_long_ago(site, till):
    async def story():
        await site.publish(till.event("old"), retain=True)
        async with site:
            await site.publish(till.event("eva"))
            await till.until(site.events)
            await till.until(lambda: site.outcomes().get("retained"))
        assert [name for _, name, _ in site.events()] == ["eva"]
        await site.publish(b"", retain=True)

    asyncio.run(story())


# amqtt forgets what was not acknowledged when its reader leaves, which is why it is not for shops.
@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
def test_nothing_is_acknowledged_while_the_disk_is_full(site, till):
    async def story():
        async with site:
            await fill_up(site, till)
        assert site.events() == []
        async with site:  # as after a restart: the broker sends it again
            site.service.store._writer.execute("PRAGMA max_page_count=4294967294")
            await till.until(lambda: len(site.events()) == 400)

    asyncio.run(story())


def test_when_the_disk_has_room_again_what_waited_is_written(site, till):
    async def story():
        async with site:
            await fill_up(site, till)
            site.service.store._writer.execute("PRAGMA max_page_count=4294967294")
            await till.until(lambda: len(site.events()) == 400)
        assert site.refused() == []

    asyncio.run(story())


async def fill_up(site, till):
    writer = site.service.store._writer
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count={pages}")
    with capture_logs() as logs:
        await site.publish([till.event(f"user-{number}") for number in range(400)])
        await till.until(lambda: any("wait" in entry["event"] for entry in logs))
    assert "is full" in logs[0]["why"]


def test_what_waits_is_written_as_soon_as_the_store_can_be(site, till):
    async def story():
        site.service.store._writer.execute("PRAGMA busy_timeout=1")
        async with site:
            with Store.open(site.service.store.path) as other, other.writing(), capture_logs() as logs:
                await site.publish(till.event("eva"), till.event("ben"))
                await till.until(lambda: len(logs) == 2)
            await till.until(lambda: len(site.events()) == 2)
        assert sorted(name for _, name, _ in site.events()) == ["ben", "eva"]

    asyncio.run(story())


def test_the_broker_may_start_anew(site, till):
    async def story():
        async with site:
            site.broker.stop()
            await till.until(lambda: site.tills.trouble)
            assert "has closed the connection" in site.tills.trouble or "cannot be reached" in site.tills.trouble
            site.broker.start()
            await till.until(lambda: not site.tills.trouble, seconds=40)
            await site.publish(till.event("eva"))
            await till.until(site.events)

    asyncio.run(story())


@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
def test_what_tills_say_while_the_edge_is_away_waits_even_through_a_restart_of_the_broker(site, till):
    async def story():
        async with site:
            pass
        await site.publish(*[till.event(f"user-{number}") for number in range(300)])
        site.broker.stop()
        site.broker.start()
        async with site:
            await till.until(lambda: len(site.events()) == 300)

    asyncio.run(story())


@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
def test_a_wrong_password_says_one_clear_line(site, till):
    async def story():
        (site.folder / "password").write_text("wrong")
        tills = site.new()
        with capture_logs() as logs:
            tills.start()
            await till.until(lambda: tills._connection >= 3)
            await tills.stop()
        (entry,) = logs
        assert entry["why"] == tills.trouble
        assert f"the tills' broker at 127.0.0.1:{site.broker.port} refuses us: Not authorized" in tills.trouble
        assert "check username and password_file under [tills] in edge.toml" in tills.trouble

    asyncio.run(story())


def test_no_broker_at_all_says_one_clear_line_and_the_edge_goes_on(site, till):
    async def story():
        site.broker.stop()
        tills = site.new()
        with capture_logs() as logs:
            tills.start()
            await till.until(lambda: len(logs) == 1)
            answer = await site.service.recommend(Query(user="ada", limit=3))
            await tills.stop()
        assert "cannot be reached: [Errno 111] Connection refused" in logs[0]["why"]
        assert answer.reasons == ()
        site.broker.start()

    asyncio.run(story())


def test_a_password_file_that_is_missing_is_said_at_the_start(site):
    (site.folder / "password").unlink()
    with pytest.raises(BadInputError, match="the tills' password cannot be read"):
        site.new()
