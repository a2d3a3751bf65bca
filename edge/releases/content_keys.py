"""The content keys that were sealed to this edge, for as long as its process lives (SPEC 9.4)."""

import threading

from protocol.errors import RollbackError
from protocol.sealing import KEY_ID_BYTES, ContentKey


class ContentKeys:
    """The newest content key, and earlier ones: what is on its way may still be encrypted under them."""

    def __init__(self) -> None:
        self._known: dict[bytes, ContentKey] = {}
        self._newest: ContentKey | None = None
        self._changed = threading.Condition()

    @property
    def newest(self) -> ContentKey | None:
        return self._newest

    @property
    def number(self) -> int:
        """Of the newest; 0 before there is one."""
        return self._newest.number if self._newest else 0

    def add(self, key: ContentKey) -> None:
        """Take in a key.

        Raises:
            RollbackError: an older one, or another one of the same number.
        """
        with self._changed:
            if key.number < self.number or (key.number == self.number and key != self._newest):
                raise RollbackError(f"content key {key.number} does not come after content key {self.number}")
            self._known[key.key_id] = self._newest = key
            self._changed.notify_all()

    def wait_for_any(self, *, seconds: float) -> ContentKey | None:
        """The newest key, as soon as there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None, timeout=seconds)
            return self._newest

    def of(self, message: bytes, *, seconds: float) -> ContentKey | None:
        """The key that a message says it is encrypted under; a key may arrive after what was encrypted under it."""
        key_id = message[:KEY_ID_BYTES]
        with self._changed:
            self._changed.wait_for(lambda: key_id in self._known, timeout=seconds)
            return self._known.get(key_id)
