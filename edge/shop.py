"""All that answers a shop's questions, put together once: one object a part, no part knows the HTTP above it."""

from dataclasses import dataclass

from edge.erasing import Erasing
from edge.experiments.running import Experiments
from edge.neighbours.neighbours import Neighbours
from edge.search.searching import Search
from edge.serving.memory import Memory
from edge.serving.service import Service
from edge.tills.listening import Tills


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """What the routes ask.

    Attributes:
        service: recommendations, similar items, events.
        experiments: which arm answers; None: there are none.
        tills: the connection to their broker; None: there is none.
        neighbours: what goes with what and what is rising; None: nobody knows.
        search: items by their words; None: nothing is searched.
        memory: what the state costs; None: nobody watches it.
        storefront: address of the page for people; empty: there is none.
        erasing: how people are erased; None: without what is derived from them, and without an audit log.
    """

    service: Service
    erasing: Erasing | None = None
    experiments: Experiments | None = None
    tills: Tills | None = None
    neighbours: Neighbours | None = None
    search: Search | None = None
    memory: Memory | None = None
    storefront: str = ""
