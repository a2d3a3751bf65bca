"""The search without HTTP: a question in, items out, by their words, by what they mean, and by who asks."""

from collections.abc import Callable, Collection
from math import inf
from pathlib import Path
from typing import Final, Self

import numpy as np
import structlog
from numpy.typing import NDArray

from edge.releases.catalogue import Catalogue
from edge.search import facets
from edge.search.answers import Ask, Found, Gap, Hit, Sort, Suggested
from edge.search.completing import NO_COMPLETIONS, Completions, in_titles
from edge.search.following import Follower, View
from edge.search.fusing import SearchWeights, Slate
from edge.search.highlighting import highlight
from edge.search.index import is_panic
from edge.search.picking import NOBODY, Picked, browse, pick
from edge.search.queries import Queries
from edge.search.synonyms import KIND, NO_SYNONYMS, Synonyms
from edge.search.voices import WINDOW, Voices, without
from edge.search.words import folded, words
from edge.serving.facts import BUILT_IN
from edge.serving.filters import passing, refuse_unknown
from edge.serving.release import Loaded
from edge.serving.service import Service
from edge.serving.shelf import Shelf
from protocol import rec_id

WITHIN_SECONDS: Final = 0.2
"""An answer is of no use later than that, unless its question says otherwise."""
_LOOKED_THROUGH: Final = 20  # items whose titles are looked through for words to go on with
_STOCK: Final = "stock"
_MOST_COMMON: Final = 20_000
_COMPLETED_SECONDS: Final = 5.0
_TIDIED_SECONDS: Final = 86_400.0
_log = structlog.get_logger(__name__)


class Search:
    """One site's search. Questions are answered in the event loop's thread; the index is written in another."""

    def __init__(
        self,
        service: Service,
        follower: Follower,
        *,
        draw: Callable[[int], bytes],
        clock: Callable[[], float],
        weights: SearchWeights | None = None,
        queries: Queries | None = None,
    ) -> None:
        """Search what a service serves.

        Args:
            draw: so many random bytes, for the names of answers.
            clock: seconds that never go back.
            weights: how much each voice counts here; None: they vote.
            queries: where searches are counted; None: they are not.
        """
        self.queries = queries
        self.weights = weights
        self.follower = follower
        self._service = service
        self._draw = draw
        self._clock = clock
        self._voices = Voices(service, clock=clock)
        self._synonyms = NO_SYNONYMS
        self._synonyms_of: tuple[int, object] = (-1, None)
        self._completions = NO_COMPLETIONS
        self._uncompleted, self._completed_at, self._completions_of = True, -inf, -1
        self._tidied_at = -inf
        self._bounds: tuple[object, int, list[float]] = (None, -1, [])

    @classmethod
    def open(
        cls,
        directory: Path,
        service: Service,
        *,
        language: str,
        draw: Callable[[int], bytes],
        clock: Callable[[], float],
        weights: SearchWeights | None = None,
    ) -> Self:
        """Search with an index in this folder; `start` begins to follow what the shop lists."""

        def catalogue() -> Catalogue | None:
            release = service.loaded.release
            return release.catalogue if release else None

        def look_again() -> None:
            search.look_again()

        follower = Follower(
            directory,
            service.store,
            language=language,
            catalogue=catalogue,
            also=look_again,
            clock=clock,
        )
        queries = Queries(service.store, now_ms=service.now_ms)
        search = cls(service, follower, draw=draw, clock=clock, weights=weights, queries=queries)
        return search

    def start(self) -> None:
        """Build or open the index, and follow."""
        self.follower.start()

    def close(self) -> None:
        """End what runs beside."""
        self.follower.stop()
        self._voices.close()

    def search(self, ask: Ask, *, loaded: Loaded | None = None) -> Found:
        """The items for a question, best first.

        Args:
            loaded: what to answer from; None: what is served.

        Raises:
            BadInputError: a filter or facet means nothing here.
        """
        loaded = loaded or self._service.loaded
        shelf = loaded.shelf
        refuse_unknown(set(ask.facets) - BUILT_IN, shelf)
        allowed = passing(shelf, ask.filter)
        view, gaps = self._view(loaded)
        picked, gap = self._pick(ask, view, loaded, allowed) if ask.text else (NOBODY, None)
        if gap is not None:
            gaps = (gap,)
        elif picked.matches is None or not picked.matches.slots:  # there are no words in it
            picked = browse(ask, view, shelf, allowed, most=ask.offset + ask.limit)
        places, scores, silent = self._ordered(ask, loaded, picked, allowed)
        page = slice(ask.offset, ask.offset + ask.limit)
        corrected = picked.matches.corrected if picked.matches else None
        if ask.text and not picked.hits and corrected is None:
            corrected = self._completions.meant(ask.text)
        if self.queries is not None and ask.text and ask.is_somebodys:
            self.queries.note(ask.text, user=ask.user, session=ask.session, found=picked.hits)
        gaps = (*gaps, *silent.values())
        self._service.metrics.note_search(found=picked.hits > 0, gaps=gaps)
        release = loaded.release
        version, sha256 = (release.version, release.sha256) if release else (0, "")
        return Found(
            rec_id=rec_id.make(version=version, sha256=sha256, drawn=self._draw(rec_id.RANDOM_BYTES)),
            release=version or None,
            hits=picked.hits,
            items=_hits(ask, places[page], scores[page], shelf, picked, view),
            corrected=corrected,
            facets=self._facets(ask, picked, view, shelf),
            gaps=gaps,
            skipped=tuple(silent),
        )

    def suggest(self, text: str, *, limit: int = 8, items: int = 4) -> Suggested:
        """What somebody who has typed this far may be about to type, and the items that it finds already."""
        loaded = self._service.loaded
        view, _ = self._view(loaded)
        ask = Ask(text=text, limit=_LOOKED_THROUGH, semantic=False)
        allowed = loaded.shelf.offered
        picked = self._pick(ask, view, loaded, allowed)[0] if text else NOBODY
        hits = _hits(ask, picked.places[:_LOOKED_THROUGH], picked.scores[:_LOOKED_THROUGH], loaded.shelf, picked, view)
        found = self._completions.of(text, most=limit)
        if len(found) < limit and picked.complete:
            known = {suggestion.text.casefold() for suggestion in found}
            more = in_titles(text, (hit.title for hit in hits[: picked.complete]), most=limit)
            found += [suggestion for suggestion in more if suggestion.text not in known]
        return Suggested(suggestions=found[:limit], items=hits[:items])

    def forget(self, names: Collection[str]) -> None:
        """Users or sessions were erased: what they are typing is not counted."""
        if self.queries is not None:
            self.queries.forget(names)

    def look_again(self) -> None:
        """Count what was searched for, and take in what was set meanwhile; for a thread beside the event loop."""
        self.read_synonyms()
        changed = self.queries.follow() if self.queries is not None else False
        shelf, now = self._service.loaded.shelf, self._clock()
        if self.queries is not None and now - self._tidied_at >= _TIDIED_SECONDS:
            self._tidied_at = now
            self.queries.forget_old()
        self._uncompleted |= changed or self._completions_of != shelf.version
        if self._uncompleted and now - self._completed_at >= _COMPLETED_SECONDS:
            self._uncompleted, self._completed_at, self._completions_of = False, now, shelf.version
            common = self.queries.common(most=_MOST_COMMON) if self.queries is not None else []
            self._completions = Completions(common, *_named(shelf))

    def read_synonyms(self) -> None:
        """Take in synonyms that were set or dropped; cheap when none were."""
        store, view = self._service.store, self.follower.view
        mark = store.documents_mark()
        if view is not None and self._synonyms_of != (mark, view.reader.stems):
            self._synonyms = Synonyms.of(store.documents(KIND), view.reader.stems)
            self._synonyms_of = (mark, view.reader.stems)

    def _view(self, loaded: Loaded) -> tuple[View | None, tuple[Gap, ...]]:
        """What can be searched; an index of the rows of another catalogue cannot."""
        view = self.follower.view
        sha256 = loaded.release.catalogue.sha256 if loaded.release else ""
        if view is None or (not view.source.listed and view.source.catalogue != sha256):
            return None, (Gap.INDEX_MISSING,)
        return view, () if view.whole else (Gap.INDEX_PARTIAL,)

    def _pick(
        self, ask: Ask, view: View | None, loaded: Loaded, allowed: NDArray[np.bool_]
    ) -> tuple[Picked, Gap | None]:
        if view is None:
            return NOBODY, Gap.INDEX_MISSING
        most = ask.offset + ask.limit
        if ask.sort is Sort.RELEVANCE and self._has_voices(ask, loaded):
            most = max(most, WINDOW)
        try:
            return pick(ask, view, loaded.shelf, allowed, most=most, synonyms=self._synonyms), None
        except BaseException as error:
            if not is_panic(error) and type(error) is not ValueError:
                raise
            _log.exception("the search index cannot be read")
            self.follower.damaged()
            return NOBODY, Gap.INDEX_MISSING

    def _has_voices(self, ask: Ask, loaded: Loaded) -> bool:
        """Whether anything but the words has a say."""
        semantic = ask.semantic and loaded.release is not None and loaded.release.semantic is not None
        return semantic or ask.is_personal or self.weights is not None

    def _ordered(
        self, ask: Ask, loaded: Loaded, picked: Picked, allowed: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], dict[str, Gap]]:
        """Places and scores, best first, and who was silent."""
        if ask.sort is not Sort.RELEVANCE or picked.matches is None or not self._has_voices(ask, loaded):
            return picked.places, picked.scores, {}
        seconds = WITHIN_SECONDS if ask.within_ms is None else min(WITHIN_SECONDS, ask.within_ms / 1_000)
        slate, silent = self._voices.slate(ask, loaded, picked, allowed, until=self._clock() + seconds)
        if self.weights is None and slate.meaning is None and slate.taste is None:
            return picked.places, picked.scores, silent
        scores = self._scores(slate, ask, loaded.shelf)
        order = np.argsort(-scores, kind="stable")
        rest = without(picked.places[WINDOW:], slate.places, size=len(allowed))
        behind = float(scores.min(initial=0.0)) - np.arange(1, len(rest) + 1, dtype=np.float32)
        return np.concatenate([slate.places[order], rest]), np.concatenate([scores[order], behind]), silent

    def _scores(self, slate: Slate, ask: Ask, shelf: Shelf) -> NDArray[np.float32]:
        """What the voices say together; what was asked for by its whole title or id stands first whatever they say."""
        scores = slate.votes() if self.weights is None else self.weights.scores(slate)
        if slate.complete:
            asked, first = folded(words(ask.text)), int(slate.places[0])
            if asked in {folded(words(shelf.title(first))), folded(words(shelf.name(first)))}:
                scores[0] = scores.max() + 1
        return scores

    def _facets(self, ask: Ask, picked: Picked, view: View | None, shelf: Shelf) -> facets.Facets:
        if not ask.facets:
            return {}
        if self._bounds[:2] != (shelf.numbering, shelf.version):
            self._bounds = (shelf.numbering, shelf.version, facets.price_bounds(shelf))
        bounds = self._bounds[2]
        in_index = picked.in_index and _STOCK not in ask.facets  # the index knows nothing of stock
        if in_index and view is not None and picked.matches is not None and picked.matches.query is not None:
            return facets.counted(picked.matches.query, ask.facets, reader=view.reader, bounds=bounds)
        return facets.tallied(picked.all_places(), ask.facets, shelf=shelf, bounds=bounds)


def _named(shelf: Shelf) -> tuple[list[str], list[str]]:
    """Categories and brands of what is on offer."""
    offered = shelf.offered.copy()
    categories, brands = (
        np.unique(shelf.category[: len(offered)][offered]),
        np.unique(shelf.brand[: len(offered)][offered]),
    )
    return [shelf.categories[code] for code in categories.tolist()], [shelf.brands[code] for code in brands.tolist()]


def _hits(
    ask: Ask,
    places: NDArray[np.int64],
    scores: NDArray[np.float32],
    shelf: Shelf,
    picked: Picked,
    view: View | None,
) -> list[Hit]:
    title, name, category, brand = shelf.title, shelf.name, shelf.categories, shelf.brands
    columns = (places.tolist(), scores.tolist(), shelf.price[places].tolist())
    found = [
        Hit(
            name(place),
            round(score, 6),
            title(place),
            float(f"{price:.7g}") if price == price else None,  # noqa: PLR0124 - nan: not known
            category[kind],
            brand[maker],
        )
        for place, score, price, kind, maker in zip(
            *columns, shelf.category[places].tolist(), shelf.brand[places].tolist(), strict=True
        )
    ]
    if ask.highlight and view is not None:
        marks = picked.matches.stems() if picked.matches else frozenset()
        return [hit._replace(highlight=highlight(hit.title, marks, view.reader.stems)) for hit in found]
    return found
