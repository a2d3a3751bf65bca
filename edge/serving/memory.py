"""What the service's state costs in memory, and the ceiling that the process stays under.

A release is asked what it will need before it is loaded beside the one that serves: one that does not fit is refused,
not tried out. When the process comes near its ceiling, what can be had again is dropped. What an answer needs is never
dropped, so a shop that lists more and more items can still grow beyond it: that is told, not prevented.
"""

import asyncio
import gc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge.serving.need import Need
from edge.serving.release import Loaded

NEAR: Final = 0.9
"""From this share of the ceiling on, what can be had again is dropped."""
GROWN: Final = 1.1
"""After growing by so much free pages are given back."""
LOOK_SECONDS: Final = 5.0
_AGAIN_LOOKS: Final = 12  # without another warning
_MEBI: Final = 1 << 20
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What there is in memory.

    Attributes:
        items: places of the shelf.
        parts: bytes of the state: catalogue, shelf, model (files that are mapped among them), private (the vectors of
            private items).
        resident: bytes of the whole process that are in real memory.
        ceiling: bytes it is to stay under.
        users: ever heard of; nothing of them is kept in memory.
        store: bytes of the books on disk.
    """

    items: int
    parts: Mapping[str, int]
    resident: int
    ceiling: int
    users: int
    store: int

    @property
    def bytes_per_item(self) -> float:
        """Of the state, in memory."""
        return sum(self.parts.values()) / max(self.items, 1)

    @property
    def bytes_per_user(self) -> float:
        """Of the books, on disk: users, their events, and the items' share."""
        return self.store / max(self.users, 1)

    def to_json(self) -> dict[str, float]:
        """For people, in MB of 2**20 bytes."""
        return {
            "resident_mb": round(self.resident / _MEBI, 1),
            "ceiling_mb": round(self.ceiling / _MEBI, 1),
            "bytes_per_item": round(self.bytes_per_item, 1),
            "disk_bytes_per_user": round(self.bytes_per_user, 1),
        }


class Memory(Collector):
    """Keeps a process under its ceiling, and tells Prometheus what lies below it."""

    def __init__(
        self,
        *,
        ceiling: int,
        loaded: Callable[[], Loaded],
        resident: Callable[[], int],
        give_back: Callable[[], None] = lambda: None,
        drop: Callable[[], None] = lambda: None,
    ) -> None:
        """Watch a process.

        Args:
            ceiling: bytes.
            loaded: what is served from.
            resident: bytes that are in real memory now.
            give_back: gives free pages back to the system.
            drop: lets go of what can be had again.
        """
        self.ceiling = ceiling
        self.relieved = 0
        """How often the ceiling was near."""
        self._tidied = 0
        self._loaded = loaded
        self._resident = resident
        self._give_back = give_back
        self._drop = drop

    def why_not(self, need: Need) -> str:
        """Why a release must not be loaded beside what is there; empty: it fits."""
        left = self.ceiling - self._resident()
        if need.bytes <= left:
            return ""
        return (
            f"it needs about {need.bytes / _MEBI:.0f} MB of memory beside what serves; serving.memory_mb "
            f"({self.ceiling / _MEBI:.0f}) leaves {max(left, 0) / _MEBI:.0f}"
        )

    def look(self) -> bool:
        """Drop what can be had again if the ceiling is near; True: it was, and it still is."""
        if self._resident() < NEAR * self.ceiling:
            return False
        self.relieved += 1
        self._drop()
        gc.collect()
        self._give_back()
        return self._resident() >= NEAR * self.ceiling

    async def tidy(self) -> None:
        """Give back what a burst has left free, once the process has grown by a tenth; beside the event loop."""
        if self._resident() > GROWN * self._tidied:
            await asyncio.to_thread(self._give_back)
            self._tidied = self._resident()

    async def watch(self) -> None:
        """Look every now and then, until cancelled. In the event loop, where what is dropped lives."""
        silent = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.tidy()
            silent = max(silent - 1, 0)
            if self.look() and not silent:
                silent = _AGAIN_LOOKS
                resident, ceiling = round(self._resident() / _MEBI), round(self.ceiling / _MEBI)
                _log.warning("memory is short", resident_mb=resident, ceiling_mb=ceiling)

    def footprint(self) -> Footprint:
        """Measured from what is loaded."""
        loaded = self._loaded()
        shelf, release, store = loaded.shelf, loaded.release, loaded.shelf.numbering.store
        with store.reading() as db:
            (users,) = db.execute("SELECT coalesce(max(id), 0) FROM users").fetchone()
        vectors = [each for each in (loaded.vectors, loaded.meanings) if each is not None]
        parts = {
            "catalogue": release.catalogue.nbytes() if release else 0,
            "shelf": shelf.nbytes(),
            "model": release.nbytes() if release else 0,
            "private": sum(each.nbytes() for each in vectors),
        }
        return Footprint(
            items=shelf.size - 1,
            parts=parts,
            resident=self._resident(),
            ceiling=self.ceiling,
            users=users,
            store=sum(path.stat().st_size for path in _books(store.path)),
        )

    def collect(self) -> Iterator[Metric]:
        """What Prometheus asks for."""
        found = self.footprint()
        state = GaugeMetricFamily("hanse_edge_state_bytes", "Memory of what answers are made of.", labels=["part"])
        for part, size in found.parts.items():
            state.add_metric([part], size)
        yield state
        for name, text, value in (
            ("hanse_edge_state_bytes_per_item", "Memory of the state for each item.", found.bytes_per_item),
            ("hanse_edge_store_bytes_per_user", "Disk of the books for each user.", found.bytes_per_user),
            ("hanse_edge_memory_ceiling_bytes", "Memory that the process stays under.", self.ceiling),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        text = "How often what can be had again was dropped."
        yield CounterMetricFamily("hanse_edge_memory_relieved", text, value=self.relieved)

    def describe(self) -> list[Metric]:
        """Nothing before it is asked: a registry that knew the names would have to measure first."""
        return []


def _books(path: Path) -> list[Path]:
    return [found for suffix in ("", "-wal") if (found := path.with_name(path.name + suffix)).exists()]
