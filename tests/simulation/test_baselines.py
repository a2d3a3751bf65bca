import numpy as np
import pytest

from simulation import datasets
from simulation.baselines import PersonalFrequency, Popularity, item_counts
from simulation.quality import Quality, evaluate


@pytest.fixture(scope="module")
def data():
    return datasets.complete_journey(12)


@pytest.fixture(scope="module")
def counts(data):
    return [item_counts(site, items=len(data.catalogue)) for site in data.sites]


def test_popularity_is_the_published_floor(data, counts):
    # Published with the data: Recall@10 .118, NDCG@10 .094 with 12 sites, hits over min(10, basket).
    popular = Popularity(np.sum(counts, axis=0))
    quality = Quality.over([evaluate(popular, site.test) for site in data.sites])
    assert quality.recall.mean() == pytest.approx(0.118, abs=0.002)
    assert quality.ndcg.mean() == pytest.approx(0.094, abs=0.002)


def test_personal_frequency_is_what_the_household_bought_most(data, counts):
    site = data.sites[0]
    personal = PersonalFrequency(site, popularity=counts[0])
    own = site.events.filter(site.events["user"] == site.test.users[3])
    (scores,) = personal.scores(np.array([3]))
    most = own["row"].value_counts().sort("count", descending=True)
    assert scores.max() == pytest.approx(most["count"][0], abs=1)
    assert np.flatnonzero(scores >= 1).tolist() == sorted(own["row"].unique())


def test_the_past_decides_ties_by_what_the_site_sells(data, counts):
    site = data.sites[0]
    (scores,) = PersonalFrequency(site, popularity=counts[0]).scores(np.array([0]))
    never = scores < 1
    best = np.argmax(np.where(never, scores, -1))
    assert counts[0][best] == counts[0][never].max()


def test_counts_are_lines_of_the_site(data, counts):
    assert [int(own.sum()) for own in counts] == [len(site.events) for site in data.sites]
    assert all(own[0] == 0 for own in counts)
