"""What an item says of itself, as hashed tokens: the part of its vector that needs no history (SPEC 4.5).

A token is a lower-case word of letters and digits with its field in front (``t:`` title, ``b:`` brand, ``c:``
category); its bucket is BLAKE2b-64 of the token's UTF-8, little-endian, modulo the number of buckets. No torch in here:
an edge can name the buckets of an item that only it sells.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

BUCKETS = 4096
MOST_TOKENS = 16
_WORD = re.compile(r"[^\W_]+")


Description = tuple[str, str, str]
"""Title, brand and category of an item."""


def buckets_of(described: Description) -> list[int]:
    """The distinct buckets of an item's tokens, at most `MOST_TOKENS`, in the order of its text."""
    fields = zip("tbc", described, strict=True)
    tokens = [f"{field}:{word}" for field, text in fields for word in _WORD.findall(text.lower())]
    return list(dict.fromkeys(_bucket(token) for token in tokens))[:MOST_TOKENS]


@lru_cache(maxsize=1 << 16)
def _bucket(token: str) -> int:
    return int.from_bytes(blake2b(token.encode(), digest_size=8).digest(), "little") % BUCKETS


def token_table(items: Iterable[Description]) -> NDArray[np.int32]:
    """int32[n + 1, MOST_TOKENS]: row i holds 1 + the buckets of item i, 0 where there are no more; row 0 is empty."""
    rows: list[Sequence[int]] = [[], *(buckets_of(item) for item in items)]
    table = np.zeros((len(rows), MOST_TOKENS), dtype=np.int32)
    for number, row in enumerate(rows):
        table[number, : len(row)] = np.asarray(row, dtype=np.int32) + 1
    return table


def mean_vectors(embeddings: NDArray[np.float32], tokens: NDArray[np.int32]) -> NDArray[np.float32]:
    """float32[m, d], the mean of the embeddings of each item's buckets; zero where an item has none.

    Added up in the order of the columns, so that center and edges get the same bits (SPEC 4.5).

    Args:
        embeddings: float32[BUCKETS + 1, d]; row 0 is zero.
        tokens: int32[m, t], rows of `token_table`.
    """
    vectors = np.zeros((len(tokens), embeddings.shape[1]), np.float32)
    for column in tokens.T:
        vectors += embeddings[column]
    vectors /= np.maximum(np.count_nonzero(tokens, axis=1), 1).astype(np.float32)[:, None]
    return vectors
