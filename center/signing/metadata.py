"""One consistent set of TUF metadata: read, checked, changed, signed (SPEC 9.6, 9.18).

root                    offline keys, a threshold of them
├── targets             offline; names no target itself, only who may sign for which places
│   ├── releases        online
│   ├── wide            online, and people who approve where the federation wants it
│   └── membership      online
├── snapshot            online
└── timestamp           online; also says which root is in force, so that replacing it puts all of this in force at once
"""

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

# These libraries re-export their public names without saying so to type checkers.
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (  # type: ignore[attr-defined]
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from protocol.errors import BadInputError
from protocol.release import ROLES

WIDE = "wide"
ROOT_IN_FORCE = "x-hanse-root"
"""The field of the timestamp that numbers the root it belongs to."""

ERA = "x-hanse-era"
"""The field of the top-level targets that counts how often the key of `releases` was replaced.

Numbers of releases count within an era: a thief of the key before may have used up the highest ones.
"""

_ALL = ("root", "targets", *ROLES, "snapshot", "timestamp")
_LOOK = "hanse-center keys status"
_MEDIA = "give --offline once for each medium with offline keys"
_WHERE = {"root": _MEDIA, "targets": _MEDIA, WIDE: "give --approve-with KEY for each person who approves"}
_COMPACT = JSONSerializer(compact=True)

Signers = Mapping[str, CryptoSigner]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """How long each kind of metadata is believed after signing."""

    root: timedelta = timedelta(days=365)
    targets: timedelta = timedelta(days=365)
    releases: timedelta = timedelta(days=180)
    wide: timedelta = timedelta(days=365)
    membership: timedelta = timedelta(days=180)
    snapshot: timedelta = timedelta(days=30)
    timestamp: timedelta = timedelta(days=7)

    def end(self, role: str, now: datetime) -> datetime:
        """When metadata of a role that are signed now end; whole seconds, UTC."""
        return (now + self.of(role)).replace(microsecond=0)

    def of(self, role: str) -> timedelta:
        return cast("timedelta", getattr(self, role))


def public_half(key: Ed25519PrivateKey | Ed25519PublicKey) -> SSlibKey:
    """A key as TUF metadata write it, with its key id."""
    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    return SSlibKey.from_crypto(public)


def key_id(key: Ed25519PrivateKey | Ed25519PublicKey) -> str:
    """TUF's name of a key: 64 hexadecimal digits."""
    return public_half(key).keyid


def signers(keys: Iterable[Ed25519PrivateKey]) -> dict[str, CryptoSigner]:
    """Key id -> what signs with it."""
    made = (CryptoSigner(key) for key in keys)
    return {signer.public_key.keyid: signer for signer in made}


@dataclass(frozen=True, slots=True)
class Chain:
    """Metadata that belong together, by role."""

    roles: dict[str, Metadata[Any]]

    @classmethod
    def first(
        cls,
        *,
        root_keys: Iterable[Ed25519PrivateKey],
        root_threshold: int,
        targets_key: Ed25519PrivateKey,
        online: Mapping[str, Ed25519PrivateKey],
        lifetimes: Lifetimes,
        now: datetime,
    ) -> Self:
        """Version 1 of everything, not signed yet.

        Raises:
            BadInputError: fewer keys than the threshold.
        """
        root = Root(version=1, expires=lifetimes.end("root", now), consistent_snapshot=True)
        for key in root_keys:
            root.add_key(public_half(key), "root")
        set_threshold(root, root_threshold)
        root.add_key(public_half(targets_key), "targets")
        for role in ("snapshot", "timestamp"):
            root.add_key(public_half(online[role]), role)
        delegated = {
            "releases": online["releases"],
            WIDE: online["releases"],
            "membership": online["membership"],
        }
        targets = Targets(version=1, expires=lifetimes.end("targets", now), delegations=_delegations(delegated))
        targets.unrecognized_fields[ERA] = 1
        roles = {role: Metadata(Targets(version=1, expires=lifetimes.end(role, now))) for role in ROLES}
        listed = {f"{role}.json": MetaFile(1) for role in ("targets", *ROLES)}
        snapshot = Snapshot(version=1, expires=lifetimes.end("snapshot", now), meta=listed)
        timestamp = Timestamp(version=1, expires=lifetimes.end("timestamp", now), snapshot_meta=MetaFile(1))
        timestamp.unrecognized_fields[ROOT_IN_FORCE] = 1
        return cls(
            {
                "root": Metadata(root),
                "targets": Metadata(targets),
                **roles,
                "snapshot": Metadata(snapshot),
                "timestamp": Metadata(timestamp),
            }
        )

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What is in force in a folder of metadata, and check it.

        Raises:
            OSError: a file is missing.
            RepositoryError: metadata are damaged, or not signed as they must be.
            ValueError: likewise.
            KeyError: likewise.
        """
        timestamp = Metadata[Timestamp].from_bytes((folder / "timestamp.json").read_bytes())
        numbers = {
            "root": timestamp.signed.unrecognized_fields[ROOT_IN_FORCE],
            "snapshot": timestamp.signed.snapshot_meta.version,
        }
        snapshot = Metadata[Snapshot].from_bytes((folder / f"{numbers['snapshot']}.snapshot.json").read_bytes())
        numbers |= {role: snapshot.signed.meta[f"{role}.json"].version for role in ("targets", *ROLES)}
        others: dict[str, Metadata[Any]] = {
            role: Metadata.from_bytes((folder / f"{number}.{role}.json").read_bytes())
            for role, number in numbers.items()
        }
        read = {**others, "snapshot": snapshot, "timestamp": timestamp}
        chain = cls({role: read[role] for role in _ALL})
        for role in _ALL:
            chain.verify(role)
        return chain

    @property
    def root(self) -> Root:
        return cast("Root", self.roles["root"].signed)

    @property
    def targets(self) -> Targets:
        return cast("Targets", self.roles["targets"].signed)

    @property
    def snapshot(self) -> Snapshot:
        return cast("Snapshot", self.roles["snapshot"].signed)

    @property
    def timestamp(self) -> Timestamp:
        return cast("Timestamp", self.roles["timestamp"].signed)

    def delegated(self, role: str) -> Targets:
        return cast("Targets", self.roles[role].signed)

    def number(self, role: str) -> int:
        """The version of a role's metadata."""
        return cast("int", self.roles[role].signed.version)

    def copy(self) -> Self:
        """One that may be changed."""
        return type(self)(deepcopy(self.roles))

    def file_name(self, role: str) -> str:
        """Where a role's metadata lie, on disk and on the broker."""
        return "timestamp.json" if role == "timestamp" else f"{self.number(role)}.{role}.json"

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Names and contents, the timestamp last."""
        for role in _ALL:
            yield self.file_name(role), self.roles[role].to_bytes(_COMPACT)

    def terms(self, role: str) -> Any:
        """Whose keys sign a role, and how many: an object with `keyids` and `threshold`."""
        return self._delegator(role).get_delegated_role(role)

    def approvers(self) -> list[str]:
        """Ids of the keys of people who approve what leaves the canary ring."""
        online = self.terms("releases").keyids
        return [name for name in self.terms(WIDE).keyids if name not in online]

    def verify(self, role: str) -> None:
        """Check a role's signatures.

        Raises:
            RepositoryError: too few of the keys that its delegator names have signed it.
        """
        metadata = self.roles[role]
        self._delegator(role).verify_delegate(role, metadata.signed_bytes, metadata.signatures)

    def sign(self, role: str, keys: Signers, *, also: Iterable[str] = ()) -> None:
        """Add the signatures of all keys that may sign a role.

        Args:
            also: ids of further keys that sign (the old keys of a new root).

        Raises:
            BadInputError: they are too few.
        """
        metadata = self.roles[role]
        for name in dict.fromkeys([*self.terms(role).keyids, *also]):
            if name in keys:
                metadata.sign(keys[name], append=True)
        try:
            self.verify(role)
        except RepositoryError as error:
            raise BadInputError(f"{error}: a key is missing", advice=_WHERE.get(role, _LOOK)) from error

    def forget(self, role: str, *, keep: Iterable[str]) -> None:
        """Drop the signatures of keys that neither sign for a role nor are to be kept."""
        metadata = self.roles[role]
        for name in {*metadata.signatures} - {*self.terms(role).keyids, *keep}:
            del metadata.signatures[name]

    def missing(self, role: str, keys: Signers) -> int:
        """How many more keys a role wants than these; not above 0: they are enough."""
        terms = self.terms(role)
        return int(terms.threshold) - sum(name in keys for name in terms.keyids)

    def renumber(self, role: str, *, expires: datetime) -> None:
        """Give a role that is to change its next number; its signatures go."""
        metadata = self.roles[role]
        metadata.signed.version += 1
        metadata.signed.expires = expires
        metadata.signatures.clear()

    def _delegator(self, role: str) -> Root | Targets:
        return self.targets if role in ROLES else self.root


def set_threshold(root: Root, threshold: int) -> None:
    """How many keys of a root must sign the next one.

    Raises:
        BadInputError: it has not got so many.
    """
    held = len(root.roles["root"].keyids)
    if not 1 <= threshold <= held:
        raise BadInputError(f"{held} root keys cannot meet a threshold of {threshold}")
    root.roles["root"].threshold = threshold


def _delegations(keys: Mapping[str, Ed25519PrivateKey]) -> Delegations:
    public = {role: public_half(key) for role, key in keys.items()}
    return Delegations(
        keys={key.keyid: key for key in public.values()},
        roles={
            role: DelegatedRole(role, [public[role].keyid], 1, True, paths=[f"{place}/*" for place in places])
            for role, places in ROLES.items()
        },
    )
