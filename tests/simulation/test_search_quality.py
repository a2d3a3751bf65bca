"""The judge of the search counts as its protocol says."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protocol.errors import BadInputError
from simulation.bench import search_quality
from simulation.bench.search_quality import FILE, measure

JUDGED = [
    (1, "Steel shelf bracket", "shelf brackets", 3.0),
    (2, "Oak shelf", "shelf brackets", 1.67),
    (3, "Paint roller", "paint rolers", 2.67),
    (4, "Paint brush", "paint rolers", 1.33),
    (5, "Hose", "asked once", 3.0),
]


@pytest.fixture
def data(tmp_path):
    names = ("product_uid", "product_title", "search_term", "relevance")
    columns = dict(zip(names, map(list, zip(*JUDGED, strict=True)), strict=True))
    pq.write_table(pa.table(columns), tmp_path / FILE)
    return tmp_path


def test_both_sides_are_measured_on_the_same_questions(data):
    report = measure(data)
    assert (report["products"], report["questions"]) == (5, 2)
    assert report["search_ndcg@10"] == pytest.approx(1.0)
    assert report["search_recall@100"] == 1.0
    assert report["plain_recall@100"] == 1.0, "paint alone finds it in so small a shop"


def test_gains_are_exponential_and_what_nobody_judged_gains_nothing():
    gain, share = search_quality._judge([9, 1], {1: 3.0, 2: 2.0})
    ideal = 3 + 1 / 1.5849625007211562
    assert gain == pytest.approx(3 / 1.5849625007211562 / ideal)
    assert share == 1.0
    assert search_quality._judge([], {1: 1.0}) == (None, None)


def test_without_data_it_says_so(tmp_path):
    with pytest.raises(BadInputError, match="is missing"):
        measure(tmp_path)
