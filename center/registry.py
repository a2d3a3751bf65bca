"""The center's books: one SQLite file with tokens, sites, rounds, releases, rollouts and the audit log.

Several processes share it (`serve` and the commands beside it), so every method is one transaction in WAL mode; what
the audit log is to tell of it is written in the same one.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from center import audit
from protocol.audit import Entry
from protocol.errors import BadInputError, UnavailableError, UntrustedError
from protocol.identity import EdgeId, Member

_SCHEMA: Mapping[str, Mapping[str, Any]] = {
    "tokens": {
        "columns": {"digest": str, "site": str, "expires_ms": int, "used_by": str, "used_ms": int},
        "pk": "digest",
    },
    "pins": {"columns": {"digest": str, "root": int}, "pk": "digest"},
    "sites": {"columns": {"edge": str, "member": str, "certificate": str, "joined_ms": int}, "pk": "edge"},
    "statuses": {"columns": {"edge": str, "status": str}, "pk": "edge"},
    "campaigns": {
        "columns": {"id": str, "submodel": str, "rounds": int, "state": str, "created_ms": int, "why": str},
        "pk": "id",
    },
    "rounds": {
        "columns": {
            "round": int,
            "campaign": str,
            "purpose": str,
            "cohort": str,
            "announced_ms": int,
            "seconds": float,
            "outcome": str,
            "figures": str,
        },
        "pk": "round",
    },
    "epochs": {"columns": {"epoch": int, "roster_version": int, "opened_ms": int}, "pk": "epoch"},
    "releases": {
        "columns": {"name": str, "kind": str, "version": int, "sha256": str, "card": str, "published_ms": int},
        "pk": "name",
    },
    "rollouts": {"columns": {"version": int, "state": str, "active": int, "record": str}, "pk": "version"},
    "steps": {
        "columns": {"version": int, "place": int, "at_ms": int, "kind": str, "facts": str},
        "pk": ("version", "place"),
    },
    "audit": audit.SCHEMA,
}

_REFUSAL = "this token is wrong, used or expired"


def _lay_out(connection: sqlite3.Connection) -> None:
    """Add the tables that are not there."""
    there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if there.issuperset(_SCHEMA):
        return
    # Imported here because it pulls in pandas where there is one: half a second of every command, for a new file only.
    from sqlite_utils import Database  # noqa: PLC0415

    database = Database(connection)
    for name, table in _SCHEMA.items():
        database.create_table(name, table["columns"], pk=table["pk"], if_not_exists=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignRow:
    """A campaign as the operator asked for it.

    Attributes:
        state: ``waiting``, ``running``, ``finished`` or ``failed``.
        why: of a failure, else empty.
    """

    id: str
    submodel: str
    rounds: int
    state: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRow:
    """One round as it went.

    Attributes:
        outcome: ``announced`` while it runs, then ``summed``, or why it failed.
        figures: what the sum said: losses, bytes, counts; by name.
    """

    round: int
    campaign: str
    purpose: str
    cohort: tuple[EdgeId, ...]
    seconds: float
    outcome: str
    figures: Mapping[str, float]


class Registry:
    """Opened by path; every method is one durable transaction."""

    def __init__(self, path: Path, *, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        """Open, or create.

        Args:
            now_ms: UTC, for the audit log.

        Raises:
            UnavailableError: the file is not a database, or cannot be written.
        """
        self.path = path
        self._now_ms = now_ms
        self._turn = threading.RLock()
        try:
            self._connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            _lay_out(self._connection)
        except sqlite3.Error as error:
            raise UnavailableError(f"{path}: {error}", advice="restore it from a backup") from error

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction, all of it or nothing."""
        with self._turn:  # campaign, gateway and statuses live in threads of one process
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def read(self, query: str, *values: Any) -> list[Any]:
        """Rows, outside of any transaction."""
        with self._turn:
            return self._connection.execute(query, values).fetchall()

    def note(self, db: sqlite3.Connection, kind: str, **facts: Any) -> None:
        """Write into the audit log what the present transaction does."""
        audit.append(db, kind, facts, now_ms=self._now_ms())

    def record(self, kind: str, **facts: Any) -> None:
        """Write into the audit log what was done elsewhere: a key rotated, a roster signed.

        Args:
            facts: JSON values.
        """
        with self.transaction() as db:
            self.note(db, kind, **facts)

    def audit_log(self) -> tuple[Entry, ...]:
        """All of it, the oldest entry first.

        Raises:
            MalformedMessageError: an entry is damaged.
        """
        with self._turn:
            return tuple(audit.entries(self._connection))

    def audit_head(self) -> str:
        """Digest of the newest entry, hexadecimal."""
        with self._turn:  # what another thread is just writing may still be undone
            return audit.head(self._connection)

    def add_token(self, digest: str, *, site: EdgeId, expires_ms: int, root: int = 1) -> None:
        """Remember a token by the digest of its secret; an older unused one of the same site stops working.

        Args:
            root: number of the TUF root that it pins.

        Raises:
            BadInputError: the site has joined already.
        """
        with self.transaction() as db:
            if db.execute("SELECT 1 FROM sites WHERE edge = ?", (site,)).fetchone():
                raise BadInputError(f"site {site} has joined already", advice="choose another name, or remove it first")
            db.execute("DELETE FROM tokens WHERE site = ? AND used_ms IS NULL", (site,))
            db.execute("INSERT INTO tokens (digest, site, expires_ms) VALUES (?, ?, ?)", (digest, site, expires_ms))
            db.execute("INSERT INTO pins (digest, root) VALUES (?, ?)", (digest, root))

    def check_token(self, digest: str, *, now_ms: int, member: Member | None = None) -> None:
        """Would this token be redeemed?

        Args:
            member: by whom; None asks only whether there is such a token.

        Raises:
            UntrustedError: unknown, expired, of another site, or used by another key.
        """
        _check_token(self._connection, digest, now_ms=now_ms, member=member)

    def pinned_root(self, digest: str) -> int:
        """Number of the TUF root that a token pins; 1 if it is not remembered."""
        row = self._connection.execute("SELECT root FROM pins WHERE digest = ?", (digest,)).fetchone()
        return int(row[0]) if row else 1

    def redeem(self, digest: str, *, member: Member, now_ms: int) -> None:
        """Use a token up. The same edge may ask again: its first answer may have been lost on the way.

        Raises:
            UntrustedError: see `check_token`.
        """
        with self.transaction() as db:
            _check_token(db, digest, now_ms=now_ms, member=member)
            used = (member.identity.hex(), now_ms, digest)
            db.execute("UPDATE tokens SET used_by = ?, used_ms = ? WHERE digest = ?", used)

    def add_site(self, member: Member, *, certificate: str, now_ms: int) -> None:
        """Remember a site that has joined; it is admitted by the next signed roster, not before."""
        with self.transaction() as db:
            db.execute(
                "INSERT INTO sites (edge, member, certificate, joined_ms) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (edge) DO UPDATE SET certificate = excluded.certificate",
                (member.edge, json.dumps(member.to_json()), certificate, now_ms),
            )
            self.note(db, "joined", site=member.edge, identity=member.identity.hex())

    def invited(self) -> tuple[EdgeId, ...]:
        """All names that a token was made for and has not been used."""
        rows = self._connection.execute("SELECT DISTINCT site FROM tokens WHERE used_ms IS NULL ORDER BY site")
        return tuple(EdgeId(row[0]) for row in rows.fetchall())

    def sites(self) -> tuple[Member, ...]:
        """All sites that have joined, sorted by name."""
        rows = self._connection.execute("SELECT member FROM sites ORDER BY edge").fetchall()
        return tuple(Member.from_json(json.loads(row[0])) for row in rows)

    def note_statuses(self, statuses: Mapping[EdgeId, Mapping[str, Any]]) -> None:
        """Remember what each edge last said that it runs: hearsay for people, nothing is decided by it."""
        rows = [(edge, json.dumps(dict(status), sort_keys=True)) for edge, status in sorted(statuses.items())]
        with self.transaction() as db:
            db.execute("DELETE FROM statuses")
            db.executemany("INSERT INTO statuses (edge, status) VALUES (?, ?)", rows)

    def statuses(self) -> dict[EdgeId, Mapping[str, Any]]:
        """What each edge last said that it runs."""
        rows = self._connection.execute("SELECT edge, status FROM statuses").fetchall()
        return {EdgeId(row[0]): json.loads(row[1]) for row in rows}

    def remove_site(self, edge: EdgeId) -> None:
        """Forget a site and its token, which would let it in again; the next signed roster leaves it out.

        Raises:
            BadInputError: there is no such site.
        """
        with self.transaction() as db:
            if db.execute("DELETE FROM sites WHERE edge = ?", (edge,)).rowcount == 0:
                raise BadInputError(f"no site {edge} has joined", advice="hanse-center status lists them")
            db.execute("DELETE FROM tokens WHERE site = ?", (edge,))
            self.note(db, "removed", site=edge)

    def ask_campaign(self, campaign: str, *, submodel: str, rounds: int, now_ms: int) -> None:
        """Ask the running center for a campaign."""
        with self.transaction() as db:
            db.execute(
                "INSERT INTO campaigns (id, submodel, rounds, state, created_ms, why) "
                "VALUES (?, ?, ?, 'waiting', ?, '')",
                (campaign, submodel, rounds, now_ms),
            )

    def next_campaign(self) -> CampaignRow | None:
        """The oldest campaign that is not over; one that was running when the center died comes first."""
        row = self._connection.execute(
            "SELECT id, submodel, rounds, state, why FROM campaigns WHERE state IN ('running', 'waiting') "
            "ORDER BY state = 'waiting', created_ms LIMIT 1"
        ).fetchone()
        return CampaignRow(id=row[0], submodel=row[1], rounds=row[2], state=row[3], why=row[4]) if row else None

    def campaign(self, campaign: str | None = None) -> CampaignRow:
        """One campaign, or the newest.

        Raises:
            BadInputError: there is none of that name.
        """
        where, values = ("WHERE id = ?", (campaign,)) if campaign else ("", ())
        row = self._connection.execute(
            f"SELECT id, submodel, rounds, state, why FROM campaigns {where} ORDER BY created_ms DESC LIMIT 1",  # noqa: S608 - no input in it
            values,
        ).fetchone()
        if row is None:
            raise BadInputError(f"there is no campaign {campaign or 'yet'}", advice="hanse-center train starts one")
        return CampaignRow(id=row[0], submodel=row[1], rounds=row[2], state=row[3], why=row[4])

    def set_campaign(self, campaign: str, *, state: str, why: str = "") -> None:
        with self.transaction() as db:
            db.execute("UPDATE campaigns SET state = ?, why = ? WHERE id = ?", (state, why, campaign))
            self.note(db, f"campaign {state}", campaign=campaign, why=why)

    def begin_round(self, campaign: str, *, purpose: str, cohort: tuple[EdgeId, ...], now_ms: int) -> int:
        """Take the next round number, durably, before anybody hears of it."""
        with self.transaction() as db:
            cursor = db.execute(
                "INSERT INTO rounds (campaign, purpose, cohort, announced_ms, seconds, outcome, figures) "
                "VALUES (?, ?, ?, ?, 0, 'announced', '{}')",
                (campaign, purpose, json.dumps(cohort), now_ms),
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def next_round(self) -> int:
        """The number that the next round gets, if nobody takes one before."""
        return int(self._connection.execute("SELECT COALESCE(MAX(round), 0) + 1 FROM rounds").fetchone()[0])

    def begin_epoch(self, *, roster_version: int, now_ms: int) -> int:
        """Take the next number of a key epoch, durably, before anybody hears of it."""
        with self.transaction() as db:
            cursor = db.execute(
                "INSERT INTO epochs (roster_version, opened_ms) VALUES (?, ?)", (roster_version, now_ms)
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def newest_epoch(self) -> int:
        """The newest key epoch that was begun, 0 before the first."""
        return int(self._connection.execute("SELECT COALESCE(MAX(epoch), 0) FROM epochs").fetchone()[0])

    def campaign_number(self, campaign: str) -> int:
        """1 for the first campaign of the federation, and so on."""
        row = self._connection.execute("SELECT rowid FROM campaigns WHERE id = ?", (campaign,)).fetchone()
        return int(row[0])

    def end_round(self, number: int, *, seconds: float, outcome: str, figures: Mapping[str, float]) -> None:
        with self.transaction() as db:
            db.execute(
                "UPDATE rounds SET seconds = ?, outcome = ?, figures = ? WHERE round = ?",
                (seconds, outcome, json.dumps(dict(figures)), number),
            )
            self._note_round(db, number)

    def settle_round(self, number: int) -> None:
        """Write down that a round was summed if nobody has said yet how it ended: its fruit is on disk."""
        with self.transaction() as db:
            told = "UPDATE rounds SET outcome = 'summed' WHERE round = ? AND outcome = 'announced'"
            if db.execute(told, (number,)).rowcount:
                self._note_round(db, number)

    def _note_round(self, db: sqlite3.Connection, number: int) -> None:
        row = db.execute("SELECT campaign, purpose, outcome FROM rounds WHERE round = ?", (number,)).fetchone()
        if row is not None:
            kind = "round summed" if row[2] == "summed" else "round lost"
            self.note(db, kind, round=number, campaign=row[0], purpose=row[1])

    def rounds(self, campaign: str | None = None) -> tuple[RoundRow, ...]:
        """The rounds of a campaign or a release, or all of them, oldest first."""
        rows = self.read(
            "SELECT round, campaign, purpose, cohort, seconds, outcome, figures FROM rounds "
            "WHERE campaign = ?1 OR ?1 IS NULL ORDER BY round",
            campaign,
        )
        return tuple(
            RoundRow(
                round=row[0],
                campaign=row[1],
                purpose=row[2],
                cohort=tuple(EdgeId(name) for name in json.loads(row[3])),
                seconds=row[4],
                outcome=row[5],
                figures=json.loads(row[6]),
            )
            for row in rows
        )

    def next_version(self, kind: str) -> int:
        """The version that the next release of a kind gets."""
        row = self._connection.execute("SELECT max(version) FROM releases WHERE kind = ?", (kind,)).fetchone()
        return (row[0] or 0) + 1

    def add_release(self, kind: str, version: int, *, sha256: str, card: Mapping[str, Any], now_ms: int) -> None:
        with self.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO releases (name, kind, version, sha256, card, published_ms) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (f"{kind}/{version}", kind, version, sha256, json.dumps(card), now_ms),
            )
            self.note(db, f"{kind} made", version=version, sha256=sha256)

    def release(self, kind: str) -> tuple[int, Mapping[str, Any]] | None:
        """Version and card of the newest release of a kind, if there is one."""
        row = self._connection.execute(
            "SELECT version, card FROM releases WHERE kind = ? ORDER BY version DESC LIMIT 1", (kind,)
        ).fetchone()
        return (row[0], json.loads(row[1])) if row else None

    def releases(self, kind: str) -> dict[int, Mapping[str, Any]]:
        """Cards of all releases of a kind by version, the newest first."""
        query = "SELECT version, card FROM releases WHERE kind = ? ORDER BY version DESC"
        return {row[0]: json.loads(row[1]) for row in self._connection.execute(query, (kind,)).fetchall()}


def _check_token(db: sqlite3.Connection, digest: str, *, now_ms: int, member: Member | None) -> None:
    row = db.execute("SELECT site, expires_ms, used_by FROM tokens WHERE digest = ?", (digest,)).fetchone()
    if row is None or row[1] < now_ms:
        raise UntrustedError(_REFUSAL)
    if member is not None and (row[0] != member.edge or row[2] not in {None, member.identity.hex()}):
        raise UntrustedError(_REFUSAL)
