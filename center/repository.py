"""The federation's TUF repository on disk: root, targets, snapshot, timestamp (SPEC 9.1).

metadata/1.root.json 7.targets.json 7.snapshot.json timestamp.json     targets/bundle/<digest>.3.json

Every step writes new files beside the old ones and replaces ``timestamp.json`` last: killed anywhere, the repository is
still the one before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.exceptions import StorageError

# These libraries re-export their public names without saying so to type checkers.
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (  # type: ignore[attr-defined]
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from center import durable
from protocol.errors import BadInputError
from protocol.release import Kind, Offer, is_release

Role = TypeVar("Role", Root, Targets, Snapshot, Timestamp)

_COMPACT = JSONSerializer(compact=True)
_ONLINE = ("targets", "snapshot", "timestamp")


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineKeys:
    """What the running center signs with. A root is not among them: it stays offline."""

    targets: Ed25519PrivateKey
    snapshot: Ed25519PrivateKey
    timestamp: Ed25519PrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """How long each kind of metadata is believed after signing."""

    root: timedelta = timedelta(days=365)
    targets: timedelta = timedelta(days=180)
    snapshot: timedelta = timedelta(days=30)
    timestamp: timedelta = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What belongs on the broker, in the order in which it must arrive there.

    Attributes:
        targets: file name below ``tuf/`` -> content.
        metadata: likewise; ``timestamp.json`` is the last.
    """

    targets: Mapping[str, bytes]
    metadata: Mapping[str, bytes]


class Repository:
    """The repository, as far as the online keys reach."""

    def __init__(self, directory: Path, *, keys: OnlineKeys, lifetimes: Lifetimes | None = None) -> None:
        """Open an existing repository.

        Raises:
            BadInputError: there is none, or its metadata cannot be read.
        """
        self._directory = directory
        self._signers = {role: CryptoSigner(getattr(keys, role)) for role in _ONLINE}
        self._lifetimes = lifetimes or Lifetimes()
        self._staged: dict[str, tuple[TargetFile, bytes]] = {}
        try:
            self._load()
        except (OSError, StorageError, RepositoryError, ValueError, KeyError) as error:
            raise BadInputError(
                f"the release repository in {directory} cannot be read: {error}",
                advice="restore it from a backup, or run hanse-center init",
            ) from error

    @classmethod
    def create(
        cls,
        directory: Path,
        *,
        root_keys: Sequence[Ed25519PrivateKey],
        root_threshold: int = 1,
        keys: OnlineKeys,
        now: datetime,
        lifetimes: Lifetimes | None = None,
    ) -> Self:
        """Make a new repository with empty targets.

        Args:
            root_keys: all keys that may sign the root; only used here and in `rotate_root`.
            root_threshold: how many of them must.
            now: UTC.

        Raises:
            BadInputError: there is one already, or fewer keys than the threshold.
        """
        if (directory / "metadata").exists():
            raise BadInputError(f"{directory} holds a release repository already")
        terms = lifetimes or Lifetimes()
        online = {role: CryptoSigner(getattr(keys, role)) for role in _ONLINE}
        root = _root(1, root_keys, root_threshold, online, expires=_later(now, terms.root))
        _write(directory, "1.root.json", _sign(root, [CryptoSigner(key) for key in root_keys]))
        targets = Targets(version=1, expires=_later(now, terms.targets))
        snapshot = Snapshot(version=1, expires=_later(now, terms.snapshot), meta={"targets.json": MetaFile(1)})
        timestamp = Timestamp(version=1, expires=_later(now, terms.timestamp), snapshot_meta=MetaFile(1))
        _write(directory, "1.targets.json", _sign(targets, [online["targets"]]))
        _write(directory, "1.snapshot.json", _sign(snapshot, [online["snapshot"]]))
        _write(directory, "timestamp.json", _sign(timestamp, [online["timestamp"]]))
        return cls(directory, keys=keys, lifetimes=lifetimes)

    @property
    def first_root(self) -> bytes:
        """Version 1 of the root: what an enrolment token pins."""
        return (self._directory / "metadata" / "1.root.json").read_bytes()

    def offers(self) -> dict[str, Offer]:
        """Every release, signed or staged, by target name."""
        files = {**self._targets.targets, **{name: target for name, (target, _) in self._staged.items()}}
        return {name: Offer.from_custom(name, file.custom) for name, file in files.items() if is_release(name)}

    def next_version(self, kind: Kind) -> int:
        """The number that the next release of a kind must carry."""
        return max((offer.version for offer in self.offers().values() if offer.kind is kind), default=0) + 1

    def add(self, offer: Offer, manifest: bytes) -> None:
        """Stage a release; `publish_version` signs it.

        Args:
            manifest: content of the target. The manifest of an older release makes this one a rollback to it.

        Raises:
            BadInputError: its number is not the next one.
        """
        if offer.version != self.next_version(offer.kind):
            raise BadInputError(f"the next {offer.kind} is number {self.next_version(offer.kind)}, not {offer.version}")
        self.add_target(offer.target, manifest, custom=offer.to_custom())

    def add_target(self, name: str, content: bytes, *, custom: Mapping[str, Any]) -> None:
        """Stage any target; its name is its place below ``targets/``."""
        target = TargetFile.from_data(name, content, ["sha256"])
        target.unrecognized_fields["custom"] = dict(custom)
        self._staged[name] = (target, content)

    def publish_version(self, *, now: datetime) -> Published:
        """Sign what is staged: new targets, snapshot and timestamp."""
        for name, (target, content) in self._staged.items():
            durable.write(self._directory / "targets" / target.get_prefixed_paths()[0], content)
            self._targets.targets[name] = target
        self._targets.version += 1
        self._targets.expires = _later(now, self._lifetimes.targets)
        self._write_targets()
        self._renew_snapshot(now)
        self._renew_timestamp(now)
        self._staged.clear()
        return self.published()

    def refresh(self, *, now: datetime) -> Published:
        """Sign a fresh timestamp, and whatever else has lived through half its life."""
        stale_targets = self._targets.expires - now < self._lifetimes.targets / 2
        if stale_targets:
            self._targets.version += 1
            self._targets.expires = _later(now, self._lifetimes.targets)
            self._write_targets()
        if stale_targets or self._snapshot.expires - now < self._lifetimes.snapshot / 2:
            self._renew_snapshot(now)
        self._renew_timestamp(now)
        return self.published()

    def rotate_root(
        self,
        *,
        old_keys: Sequence[Ed25519PrivateKey],
        new_keys: Sequence[Ed25519PrivateKey],
        threshold: int,
        now: datetime,
    ) -> Published:
        """Sign a new root with the old and the new offline keys; also renews it before it expires.

        Raises:
            BadInputError: fewer keys than a threshold asks for.
        """
        version = self._root_version() + 1
        expires = _later(now, self._lifetimes.root)
        root = _root(version, new_keys, threshold, self._signers, expires=expires)
        signed = _sign(root, [CryptoSigner(key) for key in (*old_keys, *new_keys)])
        before = self._read_root(version - 1).signed
        try:
            before.verify_delegate("root", signed.signed_bytes, signed.signatures)
        except RepositoryError as error:
            raise BadInputError(f"root {version - 1} does not accept these keys: {error}") from error
        _write(self._directory, f"{version}.root.json", signed)
        return self.published()

    def published(self) -> Published:
        """Everything that is in force."""
        newest_root = self._root_version()
        names = [f"{version}.root.json" for version in range(1, newest_root + 1)]
        names += [f"{self._targets.version}.targets.json", f"{self._snapshot.version}.snapshot.json"]
        metadata = {name: (self._directory / "metadata" / name).read_bytes() for name in names}
        metadata["root.json"] = metadata[f"{newest_root}.root.json"]
        metadata["timestamp.json"] = (self._directory / "metadata" / "timestamp.json").read_bytes()
        paths = [target.get_prefixed_paths()[0] for target in self._targets.targets.values()]
        targets = {path: (self._directory / "targets" / path).read_bytes() for path in paths}
        return Published(targets=targets, metadata=metadata)

    def _load(self) -> None:
        folder = self._directory / "metadata"
        self._timestamp = Metadata[Timestamp].from_file(str(folder / "timestamp.json")).signed
        snapshot_version = self._timestamp.snapshot_meta.version
        self._snapshot = Metadata[Snapshot].from_file(str(folder / f"{snapshot_version}.snapshot.json")).signed
        targets_version = self._snapshot.meta["targets.json"].version
        self._targets = Metadata[Targets].from_file(str(folder / f"{targets_version}.targets.json")).signed

    def _write_targets(self) -> None:
        signed = _sign(self._targets, [self._signers["targets"]])
        _write(self._directory, f"{self._targets.version}.targets.json", signed)

    def _renew_snapshot(self, now: datetime) -> None:
        self._snapshot.version += 1
        self._snapshot.expires = _later(now, self._lifetimes.snapshot)
        self._snapshot.meta["targets.json"].version = self._targets.version
        signed = _sign(self._snapshot, [self._signers["snapshot"]])
        _write(self._directory, f"{self._snapshot.version}.snapshot.json", signed)

    def _renew_timestamp(self, now: datetime) -> None:
        self._timestamp.version += 1
        self._timestamp.expires = _later(now, self._lifetimes.timestamp)
        self._timestamp.snapshot_meta.version = self._snapshot.version
        _write(self._directory, "timestamp.json", _sign(self._timestamp, [self._signers["timestamp"]]))

    def _root_version(self) -> int:
        found = (self._directory / "metadata").glob("*.root.json")
        return max(int(path.name.split(".", 1)[0]) for path in found)

    def _read_root(self, version: int) -> Metadata[Root]:
        return Metadata[Root].from_file(str(self._directory / "metadata" / f"{version}.root.json"))


def _root(
    version: int,
    root_keys: Sequence[Ed25519PrivateKey],
    threshold: int,
    online: Mapping[str, CryptoSigner],
    *,
    expires: datetime,
) -> Root:
    public = [CryptoSigner(key).public_key for key in root_keys]
    if not 1 <= threshold <= len({key.keyid for key in public}):
        raise BadInputError(f"{len(public)} root keys cannot meet a threshold of {threshold}")
    root = Root(version=version, expires=expires, consistent_snapshot=True)
    for key in public:
        root.add_key(key, "root")
    root.roles["root"].threshold = threshold
    for role in _ONLINE:
        online_key: SSlibKey = online[role].public_key
        root.add_key(online_key, role)
    return root


def _sign(signed: Role, signers: Sequence[CryptoSigner]) -> Metadata[Role]:
    metadata = Metadata(signed)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata


def _write(directory: Path, name: str, metadata: Metadata[Any]) -> None:
    durable.write(directory / "metadata" / name, metadata.to_bytes(_COMPACT))


def _later(now: datetime, life: timedelta) -> datetime:
    return (now + life).replace(microsecond=0)
