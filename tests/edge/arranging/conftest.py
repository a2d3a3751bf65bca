"""A shelf of thirty things in five categories and four brands; every seventh is sold out."""

import numpy as np
import pytest

from edge.records.events import Item
from edge.serving.shelf import Shelf

COUNT = 30


@pytest.fixture
def goods(store):
    store.put_items(
        Item(
            item=f"g{number}",
            title=f"Thing {number}",
            category=f"c{number % 5}",
            brand=f"b{number % 4}",
            price=float(number),
            stock=0 if number % 7 == 0 else None,
            attributes={"margin": number / COUNT, "released": f"2026-11-{1 + number % 20:02d}"},
        )
        for number in range(1, COUNT + 1)
    )
    return store


@pytest.fixture
def shelf(goods):
    return Shelf.of(goods, None)


@pytest.fixture
def dice():
    return np.random.default_rng(7)
