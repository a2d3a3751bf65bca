"""Who was given an answer under which arm: noted in memory, written about once a second by a thread of its own.

An answer never waits for this. A process that is killed loses the exposures of the last second; whoever comes back is
noted then. What came before the first exposure counts for no arm, so a lost one costs a little and biases nothing.
"""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

from edge.records.adding import user_keys
from edge.records.batch import visitor
from edge.records.store import Store
from protocol.errors import FederationError

MOST_WAITING: Final = 100_000
"""Exposures kept in memory while the disk takes none; more are dropped, and counted."""
_AT_ONCE: Final = 2_000  # written in one transaction: some ten milliseconds, for which other writers wait
_NOTE = """
    INSERT INTO exposures (experiment, arm, user, session, first_ms, count) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET count = count + excluded.count, first_ms = min(first_ms, excluded.first_ms)"""
_PERSON = """
    SELECT id, name FROM users WHERE name = ?
    UNION ALL SELECT users.id, users.name FROM visits JOIN users ON users.id = visits.user WHERE session = ? LIMIT 1"""
_ARM = """
    SELECT arm FROM exposures WHERE experiment = ? AND user = (SELECT id FROM users WHERE name = ?) AND session = ''"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Who is exposed.

    Attributes:
        person: name of a user, or `visitor(session)`.
        session: empty where whole users are compared.
    """

    person: str
    session: str = ""

    @property
    def text(self) -> str:
        """What is hashed."""
        return self.session or self.person


@dataclass(slots=True, kw_only=True)
class _Noted:
    arm: str
    first_ms: int
    count: int


class Exposures:
    """The exposures of all experiments of a site."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[tuple[str, Unit], _Noted] = {}
        self._leaving: dict[tuple[str, Unit], _Noted] = {}
        self.dropped = 0
        """Since the start, for want of room."""

    def person(self, *, user: str | None, session: str | None) -> str | None:
        """The name in the books of whoever asks: a merged visitor's is the user's. None: nobody in particular."""
        if user is not None or session is None:
            return user
        name = visitor(session)
        with self._store.reading() as db:
            found = db.execute(_PERSON, (name, session)).fetchone()
        return found[1] if found else name

    def arm(self, experiment: str, person: str) -> str | None:
        """The arm that a person was given before, as a user or as the visitor of a session merged since."""
        unit = Unit(person=person)
        noted = self._waiting.get((experiment, unit)) or self._leaving.get((experiment, unit))
        if noted is not None:
            return noted.arm
        with self._store.reading() as db:
            found = db.execute(_ARM, (experiment, person)).fetchone()
        return found[0] if found else None

    def note(self, experiment: str, arm: str, unit: Unit, *, now_ms: int) -> None:
        """An answer was given under this arm."""
        noted = self._waiting.get((experiment, unit))
        if noted is not None:
            noted.count += 1
        elif len(self._waiting) < MOST_WAITING:
            self._waiting[experiment, unit] = _Noted(arm=arm, first_ms=now_ms, count=1)
        else:
            self.dropped += 1

    async def flush(self) -> None:
        """Write what is waiting, a transaction for every few thousand.

        Raises:
            NoSpaceError: the disk is full; it is all still waiting. So does UnavailableError.
        """
        while self._waiting and not self._leaving:
            self._leaving = {key: self._waiting.pop(key) for key in list(islice(self._waiting, _AT_ONCE))}
            try:
                await asyncio.to_thread(self._write, self._leaving)
            except FederationError:
                for key, noted in self._leaving.items():
                    later = self._waiting.get(key)
                    noted.count += later.count if later is not None else 0
                    self._waiting[key] = noted
                raise
            finally:
                self._leaving = {}

    def _write(self, leaving: Mapping[tuple[str, Unit], _Noted]) -> None:
        with self._store.writing() as db:
            rows = list(leaving.items())  # now: whoever was erased before this transaction is not among them
            keys = user_keys(db, {unit.person for (_, unit), _ in rows})
            known = {name for (name,) in db.execute("SELECT name FROM documents WHERE kind = 'experiment'")}
            db.executemany(
                _NOTE,
                [
                    (name, noted.arm, keys[unit.person], unit.session, noted.first_ms, noted.count)
                    for (name, unit), noted in rows
                    if name in known
                ],
            )

    def forget(self, people: Collection[str]) -> None:
        """Nothing of these is written any more. Within the transaction that erases what has been written of them."""
        for waiting in (self._waiting, self._leaving):
            for key in [key for key in list(waiting) if key[1].person in people]:
                waiting.pop(key, None)
