"""What operators set through the API and answers obey at once: documents of one kind, looked at once a second."""

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, Final, Generic, TypeVar

import structlog
from pydantic import TypeAdapter, ValidationError

from edge.records.store import Store
from protocol.errors import BadInputError

_log = structlog.get_logger(__name__)
_LOOK_SECONDS: Final = 1.0
T = TypeVar("T")


class Book(Generic[T]):
    """All documents of one kind by name, as values. Reading is for one thread; writing takes any."""

    def __init__(
        self,
        store: Store,
        kind: str,
        shape: type[T],
        *,
        built_in: Mapping[str, T],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Open it.

        Args:
            built_in: those of every shop; a document of the same name stands before it.
            clock: seconds that only rise.
        """
        self._store = store
        self._kind = kind
        self._adapter: TypeAdapter[T] = TypeAdapter(shape)
        self._built_in = built_in
        self._clock = clock
        self._mark = -1
        self._looked = -_LOOK_SECONDS
        self._known: Mapping[str, T] = built_in

    def known(self) -> Mapping[str, T]:
        """All of them now; what another process has written is known within a second."""
        now = self._clock()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._read()
        return self._known

    def put(self, name: str, value: T) -> None:
        """Write one down; the next answer obeys it. Waits for the disk: not in an event loop.

        Raises:
            BadInputError: it is too long, or there are too many.
        """
        self._store.put_document(self._kind, name, self.as_json(value))
        self._looked = -_LOOK_SECONDS

    def drop(self, name: str) -> bool:
        """Remove one, or bring the built-in one of its name back; False: there was none. Waits for the disk."""
        dropped = self._store.drop_document(self._kind, name)
        self._looked = -_LOOK_SECONDS
        return dropped

    def as_json(self, value: T) -> Any:
        """A value as it is written down and shown: what is not the default."""
        return self._adapter.dump_python(value, mode="json", exclude_defaults=True)

    def _read(self) -> None:
        mark = self._store.documents_mark()
        if mark == self._mark:
            return
        written = {name: self._value(name, body) for name, body in self._store.documents(self._kind).items()}
        self._known = {**self._built_in, **{name: value for name, value in written.items() if value is not None}}
        self._mark = mark

    def _value(self, name: str, body: Any) -> T | None:
        """None: an edge of another version wrote it. Answers go on without it."""
        try:
            return self._adapter.validate_python(body)
        except (ValidationError, BadInputError) as error:
            _log.warning("a document cannot be understood", kind=self._kind, name=name, why=str(error).split("\n")[0])
            return None
