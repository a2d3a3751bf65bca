"""The secrets of the epoch and of the round in flight: one small file, replaced as a whole, never to be backed up.

What it held before is overwritten on the way out: a key that was used must not come back (SPEC 5.7). On disks that
write elsewhere what is written again (flash, snapshots) that is an attempt and no promise; there the folder belongs on
an encrypted volume.

A file that was copied back is older than the edge that reads it. It knows when it was written, and the file system
knows when it was put there; if the two disagree, its secrets are not used and the edge waits for the next epoch.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from edge import durable
from protocol import canonical
from protocol.epoch_keys import EpochKeys
from protocol.errors import MalformedMessageError
from protocol.masked_update import EdgeRound

_COPIED_AFTER_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What an edge remembers between two messages of the center.

    Attributes:
        last_round: the highest round number it had begun when this was written.
        epoch: keys of the newest epoch, or None before the first.
        round: the newest round, or None.
    """

    last_round: int = 0
    epoch: EpochKeys | None = None
    round: EdgeRound | None = None


class Ratchet:
    """The file itself."""

    def __init__(self, path: Path) -> None:
        """Prepare; what a killed write left behind is overwritten and removed, since it holds the same secrets."""
        self._path = path
        for left in path.parent.glob(f".{path.name}.*"):
            with _Forgetting(left):
                left.unlink(missing_ok=True)

    def load(self) -> Secrets | None:
        """What was saved last; None if there is nothing, or nothing that may be used."""
        try:
            data = self._path.read_bytes()
            put_there_ms = self._path.stat().st_ctime_ns // 1_000_000
        except FileNotFoundError:
            return None
        try:
            value = canonical.decode(data)
            copied = abs(put_there_ms - value["written_ms"]) > _COPIED_AFTER_MS
            secrets = Secrets(
                last_round=value["last_round"],
                epoch=EpochKeys.from_bytes(bytes.fromhex(value["epoch"])) if value["epoch"] else None,
                round=EdgeRound.from_bytes(bytes.fromhex(value["round"])) if value["round"] else None,
            )
        except (MalformedMessageError, KeyError, TypeError, ValueError):
            return None
        return None if copied else secrets

    def save(self, secrets: Secrets) -> None:
        """Replace what was saved, durably, and overwrite it."""
        content = {
            "written_ms": time.time_ns() // 1_000_000,
            "last_round": secrets.last_round,
            "epoch": secrets.epoch.to_bytes().hex() if secrets.epoch else "",
            "round": secrets.round.to_bytes().hex() if secrets.round else "",
        }
        with self._forgetting():
            durable.write(self._path, canonical.encode(content), private=True)

    def forget(self) -> None:
        """Leave nothing."""
        with self._forgetting():
            self._path.unlink(missing_ok=True)

    def _forgetting(self) -> "_Forgetting":
        return _Forgetting(self._path)


class _Forgetting:
    """Overwrites the file that a name stood for, once the name stands for another."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        try:
            self._old = os.open(self._path, os.O_WRONLY)
        except FileNotFoundError:
            self._old = -1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._old < 0:
            return
        try:
            if kind is None:
                os.pwrite(self._old, bytes(os.fstat(self._old).st_size), 0)
                os.fsync(self._old)
        finally:
            os.close(self._old)
