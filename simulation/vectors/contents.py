"""What items say of themselves, and the vectors that come of it (SPEC 4.5, 9.14)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol import content

_SIZE = 4
_ITEMS = {
    "words of three fields": ("Green tea", "Own brand", "Drinks"),
    "the same word in two fields is two tokens": ("tea", "", "tea"),
    "case, marks and repeated words do not count": ("TEA, tea; Tea!", "", ""),
    "letters of all scripts, digits, no underscore": ("Čaj 茶 no_5", "Ærø", "напитки"),
    "the first sixteen of more": (" ".join(f"word{number}" for number in range(20)), "brand", "category"),
    "nothing is said": ("", "", "--"),
}


def known_items() -> dict[str, Any]:
    """Descriptions in; buckets and vectors out."""
    vectors = content.mean_vectors(_embeddings(), content.token_table(_ITEMS.values()))[1:].astype("<f2")
    items = [
        {
            "why": why,
            **dict(zip(("title", "brand", "category"), described, strict=True)),
            "buckets": content.buckets_of(described),
            "vector": vector.tobytes().hex(),
        }
        for (why, described), vector in zip(_ITEMS.items(), vectors, strict=True)
    ]
    return {"why": "an item's vector is the mean of its words' embeddings", "expect": None, "items": items}


def _embeddings() -> NDArray[np.float32]:
    """float32[BUCKETS + 1, 4], numbers that float16 holds exactly; the formula stands in the README of the vectors."""
    buckets, columns = np.arange(content.BUCKETS)[:, None], np.arange(_SIZE)
    embeddings = ((buckets * (2 * columns + 3)) % 257 - 128) / 64
    return np.vstack([np.zeros(_SIZE), embeddings]).astype(np.float32)
