"""What operators set through the API and the service must find again: small JSON documents with a kind and a name."""

import json
import sqlite3
from typing import Any

from edge.records.events import check_name
from protocol.errors import BadInputError

LONGEST_DOCUMENT = 1 << 18
"""Characters of a document as JSON, at most."""
MOST_DOCUMENTS = 10_000
"""Documents of one kind, at most."""
_PUT = "INSERT INTO documents VALUES (?, ?, ?) ON CONFLICT (kind, name) DO UPDATE SET body = excluded.body"
_CHANGED = "UPDATE marks SET value = value + 1 WHERE name = 'documents'"


def read(db: sqlite3.Connection, kind: str) -> dict[str, Any]:
    """All documents of a kind by name."""
    rows = db.execute("SELECT name, body FROM documents WHERE kind = ? ORDER BY name", (kind,))
    return {name: json.loads(body) for name, body in rows}


def put(db: sqlite3.Connection, kind: str, name: str, body: Any) -> None:
    """Set a document, replacing the one of that name.

    Raises:
        BadInputError: the name is no id, the document is too long or no JSON, or there are too many of its kind.
    """
    check_name("name", name)
    text = _json(kind, body)
    db.execute(_PUT, (kind, name, text))
    if db.execute("SELECT count(*) FROM documents WHERE kind = ?", (kind,)).fetchone()[0] > MOST_DOCUMENTS:
        raise BadInputError(f"there are {MOST_DOCUMENTS} of kind {kind} already", advice="remove one first")
    db.execute(_CHANGED)


def drop(db: sqlite3.Connection, kind: str, name: str) -> bool:
    """Remove a document; false where there was none."""
    dropped = db.execute("DELETE FROM documents WHERE kind = ? AND name = ?", (kind, name)).rowcount > 0
    if dropped:
        db.execute(_CHANGED)
    return dropped


def _json(kind: str, body: Any) -> str:
    try:
        text = json.dumps(body, ensure_ascii=False, allow_nan=False, sort_keys=True)
        text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInputError(f"the {kind} cannot be written as JSON: {error}") from error
    if len(text) > LONGEST_DOCUMENT:
        raise BadInputError(f"the {kind} has {len(text)} characters as JSON, at most {LONGEST_DOCUMENT} are allowed")
    return text
