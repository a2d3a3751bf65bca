"""The content key on the center's disk, with its number (SPEC 9.4).

`keys/content.key` lists keys, the newest first, one line each: number, 64 hexadecimal digits, and the version of the
roster it was drawn for. A line without numbers is key 1. A key that is to replace the newest lies beside it, in
`keys/content.next.key`, until everything that is in force is described under it.
"""

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from center import durable
from protocol.errors import BadInputError, MalformedMessageError
from protocol.sealing import CONTENT_KEY_BYTES, ContentKey

_FILE = "content.key"
_COMING = "content.next.key"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentKeys:
    """The key that everything is encrypted under, those before it, and the one that is to follow.

    Attributes:
        earlier: newest first; something that lies on the broker may still be under them.
        coming: durable, but not yet in force; None: no change of key is under way.
        roster: version of the roster that the last of them was drawn for; whoever is not in it never had this key.
    """

    newest: ContentKey
    earlier: tuple[ContentKey, ...] = ()
    coming: ContentKey | None = None
    roster: int = 0

    @property
    def last(self) -> ContentKey:
        """The one with the highest number: what edges are given."""
        return self.coming or self.newest

    def by_id(self, key_id: str) -> ContentKey | None:
        """The key of this id, hexadecimal; None if it has been forgotten."""
        known = (self.last, self.newest, *self.earlier)
        return next((key for key in known if key.key_id.hex() == key_id), None)


def load(folder: Path) -> ContentKeys:
    """Read the content keys of a center's folder of keys.

    Raises:
        BadInputError: they are missing or damaged.
    """
    listed = _read(folder / _FILE)
    if not listed:
        raise BadInputError(f"{folder / _FILE} holds no key", advice=_RESTORE)
    (newest, roster), *earlier = listed
    coming = None
    if (folder / _COMING).exists():
        for key, drawn_for in _read(folder / _COMING):
            if key.number > newest.number:  # else it has taken its place, and only the file was left
                coming, roster = key, drawn_for
    return ContentKeys(newest=newest, earlier=tuple(key for key, _ in earlier), coming=coming, roster=roster)


def create(folder: Path) -> ContentKey:
    """Draw the first key and store it, mode 0600."""
    key = ContentKey(number=1, secret=secrets.token_bytes(CONTENT_KEY_BYTES))
    _write(folder / _FILE, [(key, 0)])
    return key


def draw(folder: Path, *, roster: int) -> ContentKey:
    """Draw the key that is to follow; one that was drawn before and is not in force yet is given up.

    Args:
        roster: version of the roster whose members will get it.
    """
    key = ContentKey(number=load(folder).last.number + 1, secret=secrets.token_bytes(CONTENT_KEY_BYTES))
    _write(folder / _COMING, [(key, roster)])
    return key


def put_in_force(folder: Path) -> None:
    """Make the coming key the newest; nothing happens if there is none."""
    keys = load(folder)
    if keys.coming is not None:
        _write(folder / _FILE, [(keys.coming, keys.roster), *((key, 0) for key in (keys.newest, *keys.earlier))])
    (folder / _COMING).unlink(missing_ok=True)


def forget(folder: Path, *, but: Collection[str]) -> None:
    """Drop the earlier keys that nothing is encrypted under any more.

    Args:
        but: ids of keys that are still needed, hexadecimal.
    """
    (newest, roster), *earlier = _read(folder / _FILE)
    kept = [(key, drawn_for) for key, drawn_for in earlier if key.key_id.hex() in but]
    if len(kept) < len(earlier):
        _write(folder / _FILE, [(newest, roster), *kept])


_RESTORE = "restore it from a backup; hanse-center doctor shows what is missing"


def _read(path: Path) -> list[tuple[ContentKey, int]]:
    try:
        return [_parse(line.split()) for line in path.read_text("ascii").splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise BadInputError(f"{path} is missing", advice=_RESTORE) from error
    except (OSError, ValueError, MalformedMessageError) as error:
        raise BadInputError(f"{path} cannot be read: {error}", advice=_RESTORE) from error


def _parse(words: list[str]) -> tuple[ContentKey, int]:
    match words:
        case [secret]:
            return ContentKey(number=1, secret=bytes.fromhex(secret)), 0
        case [number, secret, roster]:
            return ContentKey(number=int(number), secret=bytes.fromhex(secret)), int(roster)
        case _:
            raise ValueError("a line has a number, a key and the version of a roster")


def _write(path: Path, keys: list[tuple[ContentKey, int]]) -> None:
    lines = [f"{key.number} {key.secret.hex()} {roster}\n" for key, roster in keys]
    durable.write(path, "".join(lines).encode("ascii"), private=True)
