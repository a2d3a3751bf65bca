"""The vectors of everything at this edge, by place: the shared catalogue's from the release, private items' by content.

An item that only this site sells gets the vector that its title, brand and category would give it in the catalogue
without an embedding of its own (SPEC 4.5, 9.14): the release ships the embeddings of the words. So shared and private
items lie in one space, can be compared with each other, and the sequence model can read and rank both.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.breaths import in_breaths
from edge.serving.nearest import Nearest, Rows
from edge.serving.numbering import Numbering
from edge.serving.ranker import Ranked, Ranker, best
from edge.texts import longer
from protocol.content import mean_vectors, token_table

MOST: Final = 100
_SMALLEST: Final = 1e-6
_AT_A_TIME: Final = 512
_ROOM: Final = 0.25  # so much more than is needed is reserved when items come


class Vectors:
    """What one release makes of one numbering's items. Used by one thread at a time; follows the items by itself."""

    def __init__(self, ranker: Ranker, numbering: Numbering, *, tokens: NDArray[np.float16] | None) -> None:
        """Embed all private items; takes about a second for 50,000 of them, so not in the loop.

        Args:
            tokens: float16[BUCKETS + 1, d] of the release; None: it ships none, and private items have no vectors.
        """
        self._ranker = ranker
        self._numbering = numbering
        self._tokens = tokens
        self._rows = numbering.rows
        self._room, self._lengths_room = np.zeros((0, ranker.width), np.float32), np.zeros(0, np.float32)
        self._own, self._length = self._room, self._lengths_room
        self.nearest = Nearest(ranker)
        """Of shared items only; private ones are few, and are looked at each time."""
        self._seen = 0
        self.follow(gently=True)

    def follow(self, *, gently: bool = False) -> None:
        """Embed what has come or has changed since the last look.

        Args:
            gently: let other threads go on every now and then.
        """
        if self._tokens is None or self._seen == self._numbering.version:
            return
        seen, self._seen = self._seen, self._numbering.version
        self._reserve(self._numbering.size - self._rows - 1)
        changed = np.flatnonzero(self._numbering.described[self._rows + 1 :] > seen)
        if changed.size:
            self.nearest.forget(above=self._rows)
        words = self._tokens.astype(np.float32) if changed.size else np.zeros((0, 0), np.float32)
        for start in range(0, len(changed), _AT_A_TIME):
            part = changed[start : start + _AT_A_TIME]
            places = (part + self._rows + 1).tolist()
            tokens = token_table(map(self._numbering.description, in_breaths(places) if gently else places))
            # Rounded like the vectors of the catalogue: the same words are the same vector, wherever they stand.
            self._own[part] = mean_vectors(words, tokens[1:]).astype(np.float16)
            self._length[part] = np.linalg.norm(self._own[part], axis=1)

    @property
    def private(self) -> int:
        """How many places private items have; not all of them have a vector."""
        return self._numbering.size - self._rows - 1

    def known(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool[m], which of these have a vector."""
        self.follow()
        known = (places > 0) & (places <= self._rows)
        if len(self._own):
            private = np.flatnonzero(places > self._rows)
            known[private] = self._lengths(places[private]) > 0
        return known

    def readable(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64[t], those of a history that the model can read, in their order."""
        if not places.size or places.max() <= self._rows:
            return places
        if not self._ranker.takes_strangers:
            return places[places <= self._rows]
        return places[self.known(places)]

    def at(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[m, d]; zero where there is none."""
        self.follow()
        if not places.size or places.max() <= self._rows:
            return self._ranker.at(places)
        found = self._ranker.at(np.where(places <= self._rows, places, 0))
        private = np.flatnonzero((places > self._rows) & (places - self._rows <= len(self._own)))
        found[private] = self._own[places[private] - self._rows - 1]
        return found

    def score(self, state: NDArray[np.float32], places: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[m], what the model gives each of these: h . v + b; a private item has b = 0.

        Args:
            state: float32[d].
        """
        if not places.size or places.max() <= self._rows:
            return self._ranker.score(state, places)
        shared = np.where(places <= self._rows, places, 0)
        scores: NDArray[np.float32] = self.at(places) @ state + self._ranker.bias[shared]
        return scores

    def with_private(self, ranked: Ranked, allowed: NDArray[np.bool_], *, most: int = MOST) -> Ranked:
        """The model's answer with the private items that stand among its best; itself where there are none.

        Args:
            allowed: bool[size], places that may be named.
            most: so many are left, the best.
        """
        places, scores = self.best_private(ranked.state, allowed, k=most)
        if not places.size:
            return ranked
        places = np.concatenate([ranked.rows, places])
        scores = np.concatenate([self._ranker.score(ranked.state, ranked.rows), scores])
        return Ranked(state=ranked.state, rows=places[best(scores, most)])

    def best_private(
        self, state: NDArray[np.float32], allowed: NDArray[np.bool_], *, k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k private items that the model likes best, best first, and the scores it gives them.

        Args:
            allowed: bool[size], places that may be named.
        """
        self.follow()
        if not len(self._own):
            return np.empty(0, np.int64), np.empty(0, np.float32)
        scores = self._own @ state
        scores[~self._nameable(allowed)] = -np.inf
        found = best(scores, k)
        return found + self._rows + 1, scores[found]

    def similar(
        self, place: int, allowed: NDArray[np.bool_], *, k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k nearest other items by cosine, best first, with their cosines; shared and private ones alike.

        Args:
            place: of an item with a vector.
            allowed: bool[size], places that may be named.
        """
        direction = self._direction(place)
        shared, cosines = self.nearest.of(place, direction)
        kept = allowed[shared] & (shared != place)
        if np.count_nonzero(kept) >= k:
            shared, cosines = shared[kept], cosines[kept]
        else:  # those that may be named lie further away
            shared = np.flatnonzero(allowed[: self._rows + 1])
            shared = shared[(shared > 0) & (shared != place)]
            cosines = self._ranker.cosines(shared, direction)
        if len(self._own):
            own: NDArray[np.float32] = self._own @ direction
            own /= np.maximum(self._length, _SMALLEST)
            own[~self._nameable(allowed)] = -np.inf
            if place > self._rows:
                own[place - self._rows - 1] = -np.inf
            private = best(own, k)
            shared = np.concatenate([shared, private + self._rows + 1])
            cosines = np.concatenate([cosines, own[private]])
        found = best(cosines, k)
        return shared[found], cosines[found]

    def search_for(self, place: int) -> Callable[[], Rows] | None:
        """What finds the rows nearest to a place, for `nearest` to keep; None: `similar` takes no time."""
        if not self.nearest.takes_long(place) or not self.known(np.array([place]))[0]:
            return None
        return self.nearest.search(self._direction(place))

    def _direction(self, place: int) -> NDArray[np.float32]:
        """float32[d], of length 1 where the place has a vector."""
        vector = self.at(np.array([place]))[0]
        direction: NDArray[np.float32] = vector / max(float(np.linalg.norm(vector)), _SMALLEST)
        return direction

    def nbytes(self) -> int:
        """Bytes in memory of what private items add."""
        return self._room.nbytes + self._lengths_room.nbytes

    def _nameable(self, allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """bool[private]: allowed, with a vector. Places that came after the mask was made are not."""
        mask = self._length > 0
        private = allowed[self._rows + 1 : self._rows + 1 + len(mask)]
        mask[: len(private)] &= private
        mask[len(private) :] = False
        return mask

    def _lengths(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[m], of the vectors of private places; 0: none."""
        numbers = places - self._rows - 1
        lengths: NDArray[np.float32] = np.where(
            numbers < len(self._length), self._length.take(numbers, mode="clip"), np.float32(0)
        )
        return lengths

    def _reserve(self, private: int) -> None:
        """Have so many rows."""
        if private > len(self._room):
            self._room = _higher(self._room, private)
            self._lengths_room = longer(self._lengths_room, len(self._room))
        self._own, self._length = self._room[:private], self._lengths_room[:private]


def _higher(table: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    """The same rows, zeros after them, and room for more than that."""
    grown = np.zeros((rows + int(_ROOM * rows), table.shape[1]), np.float32)
    grown[: len(table)] = table
    return grown
