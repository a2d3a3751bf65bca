"""The audit log as processes write it that have a shop to serve: what cannot be written down stops nothing."""

import time
from pathlib import Path
from typing import Any

import structlog

from edge.audit import AuditLog
from protocol.errors import FederationError

_log = structlog.get_logger(__name__)


class Diary:
    """Writes into the audit log of an edge's folder, or says in the process's own log that it could not."""

    def __init__(self, directory: Path) -> None:
        """Open the log; a damaged one is left as it is, and nothing is written."""
        self._audit: AuditLog | None = None
        try:
            self._audit = AuditLog(directory)
        except FederationError as error:
            _log.error("the audit log cannot be opened", why=error.line())

    def note(self, kind: str, **facts: Any) -> None:
        """One entry, now."""
        try:
            if self._audit is not None:
                self._audit.note(kind, time_ms=time.time_ns() // 1_000_000, **facts)
        except FederationError as error:
            _log.error("not in the audit log", kind=kind, why=error.line())

    def head(self) -> str:
        """Digest of the last entry; empty where there is no log."""
        try:
            return self._audit.head() if self._audit is not None else ""
        except FederationError:
            return ""

    def close(self) -> None:
        if self._audit is not None:
            self._audit.close()
