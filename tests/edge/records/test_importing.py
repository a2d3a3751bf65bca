"""Files of real shops: what is good goes in once, what is not is written down, and no file can hurt the edge."""

import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edge.records.events import Item
from edge.records.importing import import_events, import_items
from edge.records.store import Store
from protocol.errors import BadInputError

NOW_MS = 1_795_000_000_000
HEADER = "event_id,user,item,type,time,quantity\n"


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store.db") as opened:
        yield opened


@pytest.fixture
def load(store, tmp_path):
    def load(content, *, suffix=".csv", **options):
        path = tmp_path / f"events{suffix}"
        if isinstance(content, pa.Table):
            pq.write_table(content, path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return import_events(store, path, rejects=tmp_path / "rejects.jsonl", now_ms=NOW_MS, **options)

    return load


@pytest.fixture
def rejects(tmp_path):
    def read():
        path = tmp_path / "rejects.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    return read


def figures(outcome):
    return (outcome.rows, outcome.added, outcome.duplicates, outcome.rejected)


CSV = HEADER + "a,ada,tea,purchase,2020-01-01T10:00:00Z,1\nb,ada,milk,view,1577880000,\n,bob,tea,,1577880000000,2.5\n"
JSONL = (
    '{"event_id":"a","user":"ada","item":"tea","time":"2020-01-01T10:00:00Z"}\n'
    '{"user":"bob","item":7,"time":1577880000}\n\n'
)


def test_csv_goes_in_and_a_second_time_changes_nothing(load, store, rejects):
    assert figures(load(CSV)) == (3, 3, 0, 0)
    assert figures(load(CSV)) == (3, 0, 3, 0)
    assert store.history("ada", limit=9) == ["tea", "milk"]
    assert store.past("bob", limit=1).time_ms.tolist() == [1_577_880_000_000]
    assert rejects() == []


def test_jsonl_goes_in_and_a_second_time_changes_nothing(load, store):
    assert figures(load(JSONL, suffix=".jsonl")) == (2, 2, 0, 0)
    assert figures(load(JSONL, suffix=".jsonl")) == (2, 0, 2, 0)
    assert store.history("bob", limit=9) == ["7"]


def test_parquet_goes_in_and_a_second_time_changes_nothing(load, store):
    times = pa.array([1_577_880_000_000_000_000] * 3, pa.timestamp("ns"))
    table = pa.table({"user": [1, 2, 2], "item": [7.0, 8.0, None], "time": times, "note": ["", "", ""]})
    outcome = load(table, suffix=".parquet")
    assert figures(outcome) == (3, 2, 0, 1)
    assert outcome.ignored_columns == ("note",)
    assert figures(load(table, suffix=".parquet")) == (3, 0, 2, 1)
    assert store.history("1", limit=9) == ["7"]
    assert store.past("1", limit=1).time_ms.tolist() == [1_577_880_000_000]


def test_the_same_rows_are_the_same_events_in_every_format(load):
    assert figures(load("user,item,time\nada,tea,2020-01-01\n")) == (1, 1, 0, 0)
    assert figures(load('{"user":"ada","item":"tea","time":1577836800}\n', suffix=".jsonl")) == (1, 0, 1, 0)
    table = pa.table({"user": ["ada"], "item": ["tea"], "time": pa.array([18262], pa.date32())})
    assert figures(load(table, suffix=".parquet")) == (1, 0, 1, 0)


def test_two_equal_rows_without_an_id_are_two_events(load):
    twice = "user,item,time\n" + "ada,tea,2020-01-01\n" * 2
    assert figures(load(twice)) == (2, 2, 0, 0)
    assert figures(load(twice + "ada,tea,2020-01-01\n")) == (3, 1, 2, 0)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("x,ada,tea,purchase,1970-01-01,1", "before the year 2000"),
        ("x,ada,tea,purchase,0,1", "before the year 2000"),
        ("x,ada,tea,purchase,2100-01-01,1", "future"),
        ("x,ada,tea,purchase,-99999999999999999,1", "time"),
        ("x,ada,tea,purchase,yesterday,1", "ISO 8601"),
        ("x,ada,tea,purchase,,1", "time is missing"),
        ("x,ada,tea,purchase,2020-01-01,-1", "quantity -1"),
        ("x,ada,tea,purchase,2020-01-01,nan", "not a number"),
        ("x,ada,tea,purchase,2020-01-01,a lot", "not a number"),
        ("x,ada,tea,theft,2020-01-01,1", "'theft' is none of"),
        ("x,,tea,purchase,2020-01-01,1", "user is missing"),
        ("x,ada,,purchase,2020-01-01,1", "item is missing"),
        ("x,ada,ghost,purchase,2020-01-01,1", "ghost is not listed"),
        ("x,ada,tea,purchase,2020-01-01,1,more", "7 fields"),
        ("x,ada", "2 fields"),
        ("x,ada,te\0a,purchase,2020-01-01,1", "NUL"),
        ("x,ada,te\x01a,purchase,2020-01-01,1", "control character"),
        (f"x,ada,{'t' * 300},purchase,2020-01-01,1", "300 characters"),
        ('x,ada,"tea"drops,purchase,2020-01-01,1', "not CSV"),
        ('x,ada,"tea,purchase,2020-01-01,1', "not CSV"),
    ],
)
def test_a_bad_row_is_refused_with_its_line_and_its_reason(load, store, rejects, row, reason):
    store.put_items([Item(item="tea")])
    good = "g{},ada,tea,purchase,2020-01-02,1\n"
    outcome = load(HEADER + good.format(1) + row + "\n" + good.format(2))
    assert figures(outcome) == (3, 2, 0, 1)
    (refused,) = rejects()
    assert refused["line"] == 3
    assert reason in refused["reason"]
    assert store.history("ada", limit=9) == ["tea", "tea"]


def test_a_site_without_a_list_takes_any_item(load):
    assert figures(load("user,item,time\nada,anything,2020-01-01\n")) == (1, 1, 0, 0)


def test_a_stray_quote_costs_its_own_line_only(load, rejects):
    rows = [f"g{n},ada,tea,purchase,2020-01-02,1\n" for n in range(500)]
    rows[100] = 'bad,ada,"tea,purchase,2020-01-02,1\n'
    assert figures(load(HEADER + "".join(rows))) == (500, 499, 0, 1)
    assert rejects()[0]["line"] == 102


def test_a_quoted_line_end_is_part_of_the_field(load, store):
    text = HEADER + 'x,"ada, of\nLondon",tea,purchase,2020-01-01,1\n'
    assert load(text).rejected == 1  # an id with a line end is no id, but it is one row
    text = 'user,item,time,note\nada,tea,2020-01-01,"two\nlines, ""quoted"""\nbob,tea,2020-01-01,x\n'
    assert figures(load(text)) == (2, 2, 0, 0)
    assert store.history("bob", limit=1) == ["tea"]


def test_jsonl_rows_that_are_none_are_refused(load, rejects):
    lines = ['{"user":"a"', "[1]", '{"user":["a"],"item":"b","time":1577836800}', '{"user":true,"item":"b","time":1}']
    good = '{"user":"ada","item":"tea","time":1577836800}'
    assert figures(load("\n".join([*lines, good]), suffix=".jsonl")) == (5, 1, 0, 4)
    assert [entry["line"] for entry in rejects()] == [1, 2, 3, 4]


def test_a_line_that_is_not_utf_8_is_refused_alone(load, rejects):
    text = HEADER.encode() + b"x,ada,caf\xe9,purchase,2020-01-01,1\ny,ada,tea,purchase,2020-01-01,1\n"
    assert figures(load(text)) == (2, 1, 0, 1)
    assert rejects()[0]["reason"] == "not UTF-8"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_line_of_a_gigabyte_is_refused_without_reading_it_into_memory(store, tmp_path, rejects, suffix):
    path = tmp_path / f"hole{suffix}"
    first, last = (
        ("user,item,time\n", "ada,tea,2020-01-01\n")
        if suffix == ".csv"
        else ("", '{"user":"ada","item":"tea","time":1577836800}\n')
    )
    with path.open("wb") as file:
        file.write(first.encode() + b"{")
        file.seek(1 << 30, 1)  # a hole: a gigabyte of zeros that takes no disk
        file.write(b"\n" + last.encode())
    tracemalloc.start()
    outcome = import_events(store, path, rejects=tmp_path / "rejects.jsonl", now_ms=NOW_MS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert figures(outcome) == (2, 1, 0, 1)
    assert "longer than" in rejects()[0]["reason"]
    assert peak < 16 << 20


@pytest.mark.parametrize(
    ("suffix", "content", "what"),
    [
        (".parquet", b"PAR1 this is no parquet PAR1", "no Parquet"),
        (".parquet", b"", "no Parquet"),
        (".csv", b"", "empty"),
        (".csv", "user,item,time\nada,tea,2020-01-01\n".encode("utf-16"), "header"),
        (".csv", b"user,item\nada,tea\n", "no column time"),
        (".csv", b"user,user,time\nada,tea,1\n", "name of its own"),
        (".csv", b"x" * (1 << 21), "longer"),
        (".jsonl", '{"user":"ada"}'.encode("utf-16"), "UTF-8"),
        (".xlsx", b"PK", "kind"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_clear_error(load, store, suffix, content, what):
    with pytest.raises(BadInputError, match=what) as refused:
        load(content, suffix=suffix)
    assert "\n" not in refused.value.line()
    assert store.event_count() == 0


def test_a_file_that_is_not_there_is_one_clear_error(store, tmp_path):
    with pytest.raises(BadInputError, match="cannot be read"):
        import_events(store, tmp_path / "no.csv", rejects=tmp_path / "r", now_ms=NOW_MS)


def test_parquet_damaged_in_the_middle_is_told_and_can_be_repeated(load, store, tmp_path):
    rows = 60_000
    table = pa.table(
        {
            "user": [f"u{n}" for n in range(rows)],
            "item": ["tea"] * rows,
            "time": [1_577_836_800 + n for n in range(rows)],
        }
    )
    path = tmp_path / "damaged.parquet"
    pq.write_table(table, path, row_group_size=20_000, compression="snappy", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40_000] = b"\xff" * 40_000
    path.write_bytes(data)
    with pytest.raises(BadInputError, match="damaged after row"):
        import_events(store, path, rejects=tmp_path / "r", now_ms=NOW_MS)
    partly = store.event_count()
    assert 0 < partly < rows
    outcome = load(table, suffix=".parquet")
    assert (outcome.added, outcome.duplicates) == (rows - partly, partly)


def test_a_huge_refused_row_is_kept_short(load, rejects):
    load(HEADER + f"x,ada,{'t' * 100_000},purchase,2020-01-01,1\n")
    assert len(json.dumps(rejects()[0])) < 3_000


def test_rejects_of_an_earlier_run_do_not_accuse_this_one(load, rejects):
    load(HEADER + "x,ada,tea,theft,2020-01-01,1\n")
    assert rejects()
    load(CSV)
    assert rejects() == []


def test_progress_ends_at_the_end(load):
    seen = []
    load(
        "user,item,time\n" + "".join(f"u{n},tea,2020-01-01\n" for n in range(25_000)),
        progress=lambda *p: seen.append(p),
    )
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(seen) == 3
    assert seen[-1][0] == seen[-1][1]


def test_items_go_in_with_what_else_the_shop_knows(store, tmp_path, rejects):
    path = tmp_path / "items.csv"
    path.write_text(
        "item,title,category,price,stock,colour,attributes\n"
        'tea,Green tea,drinks,2.50,7,green,"{""organic"": true}"\n'
        "milk,Milk,drinks,,,,\n"
        "pie,Pie,bakery,-1,,,\n"
        "cake,Cake,bakery,1,1.5,,\n"
        "bun,Bun,bakery,1,1,,[1]\n"
        ",,,,,,\n"
    )
    outcome = import_items(store, path, rejects=tmp_path / "rejects.jsonl")
    assert figures(outcome) == (6, 2, 0, 4)
    assert [entry["line"] for entry in rejects()] == [4, 5, 6, 7]
    tea = store.item("tea")
    assert (tea.price, tea.stock, tea.attributes) == (2.5, 7, {"organic": True, "colour": "green"})
    assert store.item("milk") == Item(item="milk", title="Milk", category="drinks")
    import_items(store, path, rejects=tmp_path / "rejects.jsonl")
    assert store.item("tea") == tea


def test_items_of_parquet_and_jsonl_are_the_same_items(store, tmp_path):
    pq.write_table(pa.table({"item": [1, 2], "title": ["One", None], "price": [1.0, None]}), tmp_path / "i.parquet")
    import_items(store, tmp_path / "i.parquet", rejects=tmp_path / "r")
    first = dict(store.items())
    (tmp_path / "i.jsonl").write_text('{"item":"1","title":"One","price":1}\n{"item":2,"price":null}\n')
    import_items(store, tmp_path / "i.jsonl", rejects=tmp_path / "r")
    assert dict(store.items()) == first


def test_visitors_and_where_it_happened_come_from_files_too(store, tmp_path):
    path = tmp_path / "events.csv"
    path.write_text(
        "session,user,item,time,type,region,page,device,campaign,weather\n"
        "s1,,tea,1577880000,view,Hamburg,home,kiosk,,rain\n"
        ",,tea,1577880000,view,,,,,\n"
        ",ada,milk,1577880000,view,,,,,\n"
    )
    outcome = import_events(store, path, rejects=tmp_path / "rejects.jsonl", now_ms=NOW_MS)
    assert (outcome.added, outcome.rejected, outcome.ignored_columns) == (2, 1, ("weather",))
    visit, _ = store.events_after(0, 9)
    assert visit.context == {"region": "Hamburg", "page": "home", "device": "kiosk"}
    assert len(store.past_of_session("s1", limit=9).item) == 1
    assert "user is missing" in (tmp_path / "rejects.jsonl").read_text()
    assert import_events(store, path, rejects=tmp_path / "rejects.jsonl", now_ms=NOW_MS).duplicates == 2


def test_a_file_without_users_and_sessions_is_refused(store, tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("item,time\ntea,1577880000\n")
    with pytest.raises(BadInputError, match="no column user"):
        import_events(store, path, rejects=tmp_path / "rejects.jsonl", now_ms=NOW_MS)


def test_what_is_listed_later_is_new_and_the_first_file_is_not(store, tmp_path):
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    first.write_text("item,added\ntea,\nold,2020-01-01\n")
    second.write_text("item,added\ntea,\nnew,\nodd,soon\n")
    import_items(store, first, rejects=tmp_path / "rejects.jsonl", now_ms=NOW_MS)
    outcome = import_items(store, second, rejects=tmp_path / "rejects.jsonl", now_ms=NOW_MS)
    added = {item.item: item.added_ms for _, item in store.items()}
    assert added == {"tea": None, "old": 1_577_836_800_000, "new": NOW_MS}
    assert outcome.rejected == 1
