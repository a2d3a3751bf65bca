"""The shared catalogue numbers everything; a wrong one must never be served from."""

import gzip
import tracemalloc

import numpy as np
import orjson
import pytest

from edge.releases.catalogue import Catalogue
from protocol.bundle import FileDigest
from protocol.card import CatalogueCard
from protocol.errors import MalformedMessageError, UntrustedReleaseError

LINES = [
    {"item": "10", "title": "Tea", "category": "drinks", "brand": "own", "price": 1.99},
    {"item": "20", "title": "Pie", "category": "bakery", "brand": "", "price": None},
]


@pytest.fixture
def install(tmp_path):
    def install(lines=LINES, *, items=None, unpacked=None, raw=None):
        data = b"".join(orjson.dumps(line) + b"\n" for line in lines)
        packed = gzip.compress(data, mtime=0) if raw is None else raw
        (tmp_path / "catalogue.jsonl.gz").write_bytes(packed)
        card = CatalogueCard(
            version=4,
            items=len(lines) if items is None else items,
            bytes_unpacked=len(data) if unpacked is None else unpacked,
            files={"catalogue.jsonl.gz": FileDigest.of(packed)},
        )
        (tmp_path / "card.json").write_bytes(card.to_bytes())
        return tmp_path

    return install


def test_rows_count_from_one_by_line(install):
    catalogue = Catalogue.load(install())
    assert catalogue.row_of == {"10": 1, "20": 2}
    assert [catalogue.item_at(row) for row in (1, 2)] == ["10", "20"]
    assert list(catalogue.titles) == ["", "Tea", "Pie"]
    assert catalogue.categories[2] == "bakery"
    assert catalogue.prices.tolist() == pytest.approx([np.nan, 1.99, np.nan], nan_ok=True)
    assert (len(catalogue), catalogue.version) == (2, 4)


@pytest.mark.parametrize("row", [0, -1, 3])
def test_padding_is_no_item(install, row):
    with pytest.raises(IndexError):
        Catalogue.load(install()).item_at(row)


def test_a_bomb_is_not_unpacked(install):
    bomb = gzip.compress(b"\0" * (256 << 20), compresslevel=1)
    directory = install(raw=bomb)
    tracemalloc.start()
    with pytest.raises(UntrustedReleaseError, match="promises"):
        Catalogue.load(directory)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


@pytest.mark.parametrize(
    "fault",
    [
        {"items": 3},
        {"unpacked": 10},
        {"unpacked": 1 << 50},
        {"raw": b"not gzip"},
        {"raw": gzip.compress(orjson.dumps(LINES[0]))[:-9]},
        {"lines": [LINES[0], LINES[0]]},
        {"lines": [{"title": "nameless"}]},
        {"lines": [["10"]]},
    ],
)
def test_a_catalogue_that_is_not_as_its_card_says_is_refused(install, fault):
    directory = install(**fault)
    with pytest.raises(UntrustedReleaseError) as refused:
        Catalogue.load(directory)
    assert str(directory) in refused.value.line()


def test_a_missing_file_is_told(install):
    directory = install()
    (directory / "catalogue.jsonl.gz").unlink()
    with pytest.raises(UntrustedReleaseError, match="no catalogue"):
        Catalogue.load(directory)


def test_a_card_that_is_none_is_refused(install):
    directory = install()
    (directory / "card.json").write_text("{}")
    with pytest.raises(MalformedMessageError):
        Catalogue.load(directory)
