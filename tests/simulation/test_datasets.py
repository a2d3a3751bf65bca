import csv
import json
import re
from importlib.util import find_spec

import numpy as np
import polars as pl
import pytest

from protocol.errors import BadInputError
from simulation.datasets import COMPLETE_JOURNEY, EVENT_COLUMNS, complete_journey, equal_volume


@pytest.fixture(scope="module")
def data():
    return complete_journey(3, fraction=0.05)


@pytest.fixture(scope="module")
def whole():
    return complete_journey(5)


def test_the_chain_lists_all_its_products_in_a_fixed_order(whole):
    assert len(whole.catalogue) == 92_331
    assert whole.catalogue["item"].n_unique() == 92_331
    assert whole.catalogue["item"].cast(pl.Int64).is_sorted()


def test_no_store_belongs_to_two_sites_and_none_is_lost(whole):
    stores = [store for site in whole.sites for store in site.stores]
    assert len(stores) == len(set(stores)) == 457


def test_sites_are_of_equal_volume(whole):
    volumes = [len(site.events) + len(site.test.rows) for site in whole.sites]
    assert max(volumes) < 1.01 * min(volumes)


def test_test_baskets_never_train(whole):
    folder = find_spec(COMPLETE_JOURNEY).submodule_search_locations[0]
    source = pl.read_parquet(f"{folder}/data/transactions.parquet").with_columns(
        user="household-" + pl.col("household_id").cast(pl.String),
        time=pl.col("transaction_timestamp").dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    for site in whole.sites:
        here = source.filter(pl.col("store_id").is_in(list(site.stores)))
        newest = here.group_by("user").agg(pl.col("time").max())
        assert site.events.join(newest, on=["user", "time"], how="semi").is_empty()
        assert set(site.test.users) == set(site.events["user"])


def test_test_baskets_hold_each_item_once(whole):
    for site in whole.sites:
        assert len(site.test.offsets) == len(site.test) + 1
        assert site.test.offsets[-1] == len(site.test.rows)
        for position in range(len(site.test)):
            basket = site.test.of(position)
            assert len(basket) == len(np.unique(basket)) > 0


def test_rows_are_those_of_the_shared_catalogue(data):
    names = data.catalogue["item"]
    for site in data.sites:
        sample = site.events.sample(200, seed=1)
        assert [names[row - 1] for row in sample["row"]] == sample["item"].to_list()


def test_events_come_by_user_and_time_with_ids_of_their_own(data):
    for site in data.sites:
        assert site.events["event_id"].n_unique() == len(site.events)
        assert site.events.select("user", "time").equals(
            site.events.sort(pl.col("user").str.strip_prefix("household-").cast(pl.Int64), "time").select(
                "user", "time"
            )
        )
        assert re.fullmatch(r"2017-\d\d-\d\dT\d\d:\d\d:\d\dZ|2018-01-0\dT.*Z", site.events["time"][0])


def test_the_cut_is_the_same_every_time(data):
    again = complete_journey(3, fraction=0.05)
    for site, other in zip(data.sites, again.sites, strict=True):
        assert site.stores == other.stores
        assert site.events.equals(other.events)
        assert site.test.rows.tolist() == other.test.rows.tolist()


def test_what_a_shop_would_import_is_written(data, tmp_path):
    site = data.sites[0]
    events, items = data.write_site(site, tmp_path / "shop")
    assert pl.read_parquet(events).columns == list(EVENT_COLUMNS)
    assert len(pl.read_parquet(events)) == len(site.events)
    with items.open(encoding="utf-8", newline="") as file:
        listed = [row["item"] for row in csv.DictReader(file)]
    assert sorted(listed) == sorted(site.events["item"].unique())


def test_the_catalogue_is_written_in_row_order(data, tmp_path):
    lines = data.write_catalogue(tmp_path).read_text("utf-8").splitlines()
    assert [json.loads(line)["item"] for line in lines] == data.catalogue["item"].to_list()
    assert set(json.loads(lines[0])) == {"item", "title", "category", "brand", "price"}


def test_site_names_are_edge_ids_that_sort_as_they_are_numbered():
    names = [site.name for site in complete_journey(12, fraction=0.02).sites]
    assert names == sorted(names)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", name) for name in names)


@pytest.mark.parametrize(("sites", "fraction"), [(0, 1.0), (458, 1.0), (3, 0.0), (3, 1.1), (3, float("nan"))])
def test_a_cut_that_cannot_be_made_is_refused(sites, fraction):
    with pytest.raises(BadInputError):
        complete_journey(sites, fraction=fraction)


def test_stores_are_dealt_to_the_smallest_group():
    assert equal_volume([(1, 10), (2, 9), (3, 5), (4, 4), (5, 2)], 2) == [(1, 4, 5), (2, 3)]
