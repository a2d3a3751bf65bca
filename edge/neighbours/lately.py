"""What was worked out of the books lately and still holds: bounded, and forgotten where the books have changed."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Lately(Generic[Key, Value]):
    """Values by key. Any thread asks; the one that follows the events says what has changed."""

    def __init__(self, make: Callable[[Sequence[Key]], Sequence[Value]], *, most: int) -> None:
        """Keep at most so many; what has been kept longest goes first.

        Args:
            make: works out several at once.
        """
        self._make = make
        self._most = most
        self._kept: dict[Key, Value] = {}
        self._changes = 0
        self._turn = Lock()

    def get(self, keys: Sequence[Key]) -> list[Value]:
        """One value a key."""
        known = {key: value for key in keys if (value := self._kept.get(key)) is not None}
        if len(known) < len(keys):
            missing = [key for key in dict.fromkeys(keys) if key not in known]
            before = self._changes
            made = dict(zip(missing, self._make(missing), strict=True))
            known |= made
            with self._turn:
                if before == self._changes:  # else it may be of a moment ago, and nobody would say so again
                    self._keep(made)
        return [known[key] for key in keys]

    def drop(self, keys: Iterable[Key]) -> None:
        with self._turn:
            self._changes += 1
            for key in keys:
                self._kept.pop(key, None)

    def clear(self) -> None:
        with self._turn:
            self._changes += 1
            self._kept = {}

    def __len__(self) -> int:
        return len(self._kept)

    def _keep(self, made: Mapping[Key, Value]) -> None:
        self._kept.update(made)
        for _ in range(len(self._kept) - self._most):
            del self._kept[next(iter(self._kept))]
