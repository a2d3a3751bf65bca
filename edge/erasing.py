"""Somebody wants to be forgotten: out of the books, out of what was derived from them, out of memory.

All that is on disk in the store goes in one transaction. What was learnt from a user and has left this site in a masked
sum before stays in it: nobody can take one summand out of a sum.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edge import asking
from edge.diary import Diary
from edge.neighbours import following
from edge.neighbours.sums import HalfLives
from edge.records.changes import Recorded
from edge.records.events import check_name
from edge.records.people import Erased
from edge.records.store import Store
from edge.serving.service import Service
from edge.settings import EdgeSettings
from edge.tills.rejects import FILE_NAME as REJECTS
from edge.tills.rejects import Rejects
from protocol.errors import UnavailableError

Derived = Callable[[sqlite3.Connection, Sequence[Recorded]], None]
"""Takes back what was derived from a person's events, in the transaction in which they are deleted."""
Beside = Callable[[Collection[str]], None]
"""Takes users or sessions out of what is kept outside of the store, afterwards."""
Note = Callable[..., None]
"""Writes an entry into the audit log: what kind, and facts by name."""


def _no_note(_kind: str, **_facts: object) -> None:
    """Where there is no audit log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasing:
    """How people are erased while the service runs.

    Attributes:
        note: writes into the audit log that somebody was erased, and never who.
        derived: whoever derives something from events.
        beside: whoever keeps names outside of the store.
    """

    service: Service
    note: Note = _no_note
    derived: Sequence[Derived] = ()
    beside: Sequence[Beside] = ()

    async def erase(self, *, user: str | None = None, session: str | None = None) -> Erased:
        """Delete a user, or an anonymous visitor, and all that is theirs; the next answer knows nothing of them.

        Raises:
            BadInputError: the session belongs to a user.
            NoSpaceError: the disk is full; nothing was deleted.
        """
        erased = await self.service.change(lambda store: _delete(store, user, session, self.derived))
        self.service.forget(erased.names)
        return await asyncio.to_thread(_finish, self.service.store, erased, self.beside, self.note)


def erase_here(directory: Path, settings: EdgeSettings, *, name: str, is_session: bool) -> dict[str, Any]:
    """For a command on this machine: by the edge that runs, which has things in memory, or in its folder.

    Returns:
        known, events, clean: as `Erased`.

    Raises:
        BadInputError: the name is none, or the edge refuses.
        NoSpaceError: the disk is full; nothing was deleted.
    """
    name = name.rstrip("\r\n")
    kind = "session" if is_session else "user"
    check_name(kind, name)
    try:
        return asking.erase({kind: name}, directory=directory, settings=settings)
    except UnavailableError:
        user, session = (None, name) if is_session else (name, None)
        erased = erase_at_rest(directory, settings, user=user, session=session)
    return {"known": erased.known, "events": erased.events, "clean": erased.clean}


def erase_at_rest(directory: Path, settings: EdgeSettings, *, user: str | None, session: str | None) -> Erased:
    """The same in the folder of an edge that does not run.

    Raises:
        BadInputError: the session belongs to a user, or the store is damaged.
        NoSpaceError: the disk is full; nothing was deleted.
    """
    diary = Diary(directory)
    try:
        with Store.open(directory / "store.db", durability=settings.store.durability) as store:
            rejects = Rejects(directory / REJECTS)
            derived = (partial(following.forget, half_lives=HalfLives.of(settings.neighbours)),)
            return _finish(store, _delete(store, user, session, derived), (rejects.forget,), diary.note)
    finally:
        diary.close()


def _delete(store: Store, user: str | None, session: str | None, derived: Sequence[Derived]) -> Erased:
    def also(db: sqlite3.Connection, events: list[Recorded]) -> None:
        for forget in derived:
            forget(db, events)

    return store.erase(user=user, session=session, also=also)


def _finish(store: Store, erased: Erased, beside: Sequence[Beside], note: Note) -> Erased:
    """What is outside of the transaction, and takes its time."""
    for forget in beside:  # somebody may stand there and nowhere else
        forget(erased.names)
    if not erased.known:
        return erased
    finished = replace(erased, clean=store.tidy())
    note("somebody erased", events=finished.events, clean=finished.clean)
    return finished
