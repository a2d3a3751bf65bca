"""The federation's TUF repository on disk (SPEC 9.6, 9.18).

metadata/1.root.json 2.targets.json 7.releases.json 9.snapshot.json timestamp.json     targets/canary/<digest>.3.json

Every step writes new files beside the old ones and replaces ``timestamp.json`` last: killed anywhere, the repository is
still the one before.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tuf.api.exceptions import RepositoryError

# tuf re-exports its public names without saying so to type checkers.
from tuf.api.metadata import Root, TargetFile, Targets  # type: ignore[attr-defined]

from center import durable
from center.signing.metadata import ROOT_IN_FORCE, WIDE, Chain, Lifetimes, Signers, key_id, signers
from center.signing.target_list import Staged, TargetList
from protocol.errors import BadInputError
from protocol.release import ROLES, Kind, Offer


class OnlineKeys(NamedTuple):
    """What the running center signs with. Root and top-level targets are not among them: they stay offline."""

    releases: Ed25519PrivateKey
    membership: Ed25519PrivateKey
    snapshot: Ed25519PrivateKey
    timestamp: Ed25519PrivateKey


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
    """The repository, as far as the keys at hand reach."""

    def __init__(
        self, directory: Path, *, keys: Iterable[Ed25519PrivateKey], lifetimes: Lifetimes | None = None
    ) -> None:
        """Open an existing repository.

        Args:
            keys: those at hand; the metadata say what each of them may sign.

        Raises:
            BadInputError: there is none, or its metadata cannot be read or are not signed as they must be.
        """
        self._directory = directory
        self._metadata = directory / "metadata"
        self._signers: Signers = signers(keys)
        self._lifetimes = lifetimes or Lifetimes()
        self._renewed: set[str] = set()
        try:
            self._chain = Chain.read(self._metadata)
        except (OSError, RepositoryError, ValueError, KeyError) as error:
            raise BadInputError(
                f"the release repository in {directory} cannot be read: {error}",
                advice="restore it from a backup, or run hanse-center init",
            ) from error
        self._list = TargetList(self._chain)

    @classmethod
    def create(
        cls,
        directory: Path,
        *,
        root_keys: Sequence[Ed25519PrivateKey],
        root_threshold: int = 1,
        targets_key: Ed25519PrivateKey,
        keys: OnlineKeys,
        now: datetime,
        lifetimes: Lifetimes | None = None,
    ) -> Self:
        """Make a new repository without a release.

        Args:
            root_keys: all keys that may sign the root; only used here, as is `targets_key`.
            root_threshold: how many of them must.
            now: UTC.

        Raises:
            BadInputError: there is one already, or fewer keys than the threshold.
        """
        if (directory / "metadata").exists():
            raise BadInputError(f"{directory} holds a release repository already")
        chain = Chain.first(
            root_keys=root_keys,
            root_threshold=root_threshold,
            targets_key=targets_key,
            online=keys._asdict(),
            lifetimes=lifetimes or Lifetimes(),
            now=now,
        )
        hands = signers([*root_keys, targets_key, *keys])
        for role in chain.roles:
            chain.sign(role, hands)
        for name, data in chain.files():
            durable.write(directory / "metadata" / name, data)
        return cls(directory, keys=keys, lifetimes=lifetimes)

    @property
    def first_root(self) -> bytes:
        """Version 1 of the root."""
        return self.root(1)

    @property
    def newest_root(self) -> tuple[int, bytes]:
        """Number and content of the root in force: what an enrolment token pins."""
        return self._chain.number("root"), self.root(self._chain.number("root"))

    def root(self, number: int) -> bytes:
        """A root, the one in force or an earlier one."""
        return (self._metadata / f"{number}.root.json").read_bytes()

    @property
    def chain(self) -> Chain:
        """A copy of the metadata in force."""
        return self._chain.copy()

    @property
    def approvals_needed(self) -> int:
        """How many people must sign, beside the center, what reaches rings `early` and `all`."""
        return int(self._chain.terms(WIDE).threshold) - 1

    def listed(self) -> dict[str, TargetFile]:
        """Every target, signed or staged, by name."""
        return self._list.files()

    def offers(self) -> dict[str, Offer]:
        """Every release and candidate, signed or staged, by target name."""
        return self._list.offers()

    def next_version(self, kind: Kind) -> int:
        """The number that the next release of a kind must carry; none is used twice, also not a removed one."""
        return self._list.next_version(kind)

    def content(self, name: str) -> bytes:
        """The content of a target, signed or staged.

        Raises:
            BadInputError: there is no such target.
        """
        staged = self._list.staged(name)
        return staged.content if staged is not None else self._path(self._list.file(name)).read_bytes()

    def add(self, offer: Offer, manifest: bytes) -> None:
        """Stage a release; `publish_version` signs it.

        Args:
            manifest: content of the target. The files of an older release make this one a rollback to it.

        Raises:
            BadInputError: its number is neither the next one nor that of the same files at another place.
        """
        self._list.check_number(offer)
        self.add_target(offer.target, manifest, custom=offer.to_custom())

    def add_target(self, name: str, content: bytes, *, custom: Mapping[str, Any]) -> None:
        """Stage any target, or another version of it; its name says which role signs it.

        Raises:
            BadInputError: not the name of a target.
        """
        self._list.put(name, content, custom=custom)

    def replace_target(self, name: str, content: bytes) -> None:
        """Stage another content for a target; what is said of it stays.

        Raises:
            BadInputError: there is no such target.
        """
        self._list.put(name, content, custom=self._list.file(name).custom or {})

    def remove_target(self, name: str) -> None:
        """Stage the end of a target.

        Raises:
            BadInputError: there is no such target.
        """
        self._list.drop(name)

    def renew(self, role: str) -> None:
        """Stage a delegated role as it is, to live a whole life from its signing."""
        self._renewed.add(role)

    def publish_version(self, *, now: datetime, approvals: Sequence[Ed25519PrivateKey] = ()) -> Published:
        """Sign and put in force what is staged; on an error everything stays as it was, and staged.

        Args:
            approvals: private keys of the people who approve what reaches rings `early` and `all`.

        Raises:
            BadInputError: an approval is missing, or the key of one who may not approve was given.
        """
        self._check_approvers(approvals)
        chain = self._chain.copy()
        changed = self._list.changed_roles | self._renewed
        hands = {**self._signers, **signers(approvals)}
        if WIDE in changed and (missing := chain.missing(WIDE, hands)) > 0:
            raise BadInputError(
                f"rings early and all want {missing} more approval{'s' if missing > 1 else ''} for this",
                advice="hanse-center rollout approve",
            )
        for role in changed:
            self._list.write_into(chain.delegated(role), role)
        self._sign_again(chain, changed, hands, now=now)
        self._close(chain, self._signers, fresh=self._list.fresh(), snapshot=bool(changed), now=now)
        self._list = TargetList(chain)
        self._renewed.clear()
        return self.published()

    def refresh(self, *, now: datetime) -> Published:
        """Sign a fresh timestamp, and whatever else has lived through half its life and needs nobody's approval."""
        chain = self._chain.copy()
        old = {
            role
            for role in (*ROLES, "snapshot")
            if chain.roles[role].signed.expires - now < self._lifetimes.of(role) / 2
            and chain.missing(role, self._signers) <= 0
        }
        self._sign_again(chain, old - {"snapshot"}, self._signers, now=now)
        self._close(chain, self._signers, snapshot=bool(old), now=now)
        return self.published()

    def trust(
        self,
        *,
        root: Root | None = None,
        targets: Targets | None = None,
        keys: Iterable[Ed25519PrivateKey],
        online: Iterable[Ed25519PrivateKey] = (),
        now: datetime,
    ) -> Published:
        """Put another root or other delegations in force: whoever they do not name signs nothing any more.

        What was signed with other keys gets the signatures it lacks; it keeps its number and its approvals.

        Args:
            root: the changed root; its number and its end are given here, as those of `targets`.
            keys: offline keys, old and new ones, and those of people who approve; they are forgotten again.
            online: new online keys; they are used from now on.

        Raises:
            BadInputError: too few keys for a threshold; nothing has changed.
        """
        kept = {**self._signers, **signers(online)}
        hands = {**kept, **signers(keys)}
        before, chain = self._chain, self._chain.copy()
        if root is not None:
            chain.roles["root"].signed = root
            chain.renumber("root", expires=self._lifetimes.end("root", now))
            chain.sign("root", hands, also=before.terms("root").keyids)
            _check_successor(before, chain)
        if targets is not None or chain.terms("targets").keyids != before.terms("targets").keyids:
            chain.roles["targets"].signed = targets or chain.targets
            chain.renumber("targets", expires=self._lifetimes.end("targets", now))
            chain.sign("targets", hands)
        self._sign_again(chain, self._renewed, hands, now=now)
        for role in ROLES:
            chain.forget(role, keep=before.terms(role).keyids)
            chain.sign(role, hands)
        self._close(chain, kept, snapshot=True, now=now)
        self._signers = kept
        self._renewed.clear()
        return self.published()

    def published(self) -> Published:
        """Everything that is in force."""
        roots = [f"{version}.root.json" for version in range(1, self._chain.root.version + 1)]
        metadata = {name: (self._metadata / name).read_bytes() for name in roots}
        metadata["root.json"] = metadata[roots[-1]]
        metadata |= {name: (self._metadata / name).read_bytes() for name, _ in self._chain.files()}
        targets = {file.get_prefixed_paths()[0]: self._path(file).read_bytes() for file in self._files(self._chain)}
        return Published(targets=targets, metadata=metadata)

    @staticmethod
    def _files(chain: Chain) -> list[TargetFile]:
        return [file for role in ROLES for file in chain.delegated(role).targets.values()]

    def _path(self, target: TargetFile) -> Path:
        return self._directory / "targets" / target.get_prefixed_paths()[0]

    def _check_approvers(self, approvals: Sequence[Ed25519PrivateKey]) -> None:
        for stranger in {key_id(key) for key in approvals} - {*self._chain.approvers()}:
            raise BadInputError(f"key {stranger[:16]} approves nothing here", advice="hanse-center keys status")

    def _sign_again(self, chain: Chain, roles: Iterable[str], keys: Signers, *, now: datetime) -> None:
        for role in roles:
            chain.renumber(role, expires=self._lifetimes.end(role, now))
            chain.sign(role, keys)
            chain.snapshot.meta[f"{role}.json"].version = chain.delegated(role).version

    def _close(
        self, chain: Chain, keys: Signers, *, fresh: Iterable[Staged] = (), snapshot: bool, now: datetime
    ) -> None:
        """Sign snapshot and timestamp, write everything, the timestamp last."""
        if snapshot:
            chain.snapshot.meta["targets.json"].version = chain.targets.version
            chain.renumber("snapshot", expires=self._lifetimes.end("snapshot", now))
            chain.sign("snapshot", keys)
        chain.timestamp.snapshot_meta.version = chain.snapshot.version
        chain.timestamp.unrecognized_fields[ROOT_IN_FORCE] = chain.root.version
        chain.renumber("timestamp", expires=self._lifetimes.end("timestamp", now))
        chain.sign("timestamp", keys)
        for staged in fresh:
            durable.write(self._path(staged.target), staged.content)
        before = dict(self._chain.files())
        for name, data in chain.files():
            if before.get(name) != data:
                durable.write(self._metadata / name, data)
        self._prune(self._chain, chain)
        self._chain = chain
        self._list.rest_on(chain)

    def _prune(self, *chains: Chain) -> None:
        """Remove what neither this version nor the one before it lists: a reader may still be at that one."""
        targets = {self._path(file) for chain in chains for file in self._files(chain)}
        metadata = {self._metadata / name for chain in chains for name, _ in chain.files()}
        metadata |= {self._metadata / f"{number}.root.json" for number in range(1, chains[-1].root.version)}
        for path in (*(self._directory / "targets").rglob("*.json"), *self._metadata.glob("*.json")):
            if path not in targets and path not in metadata:
                with suppress(FileNotFoundError):
                    path.unlink()


def _check_successor(before: Chain, chain: Chain) -> None:
    signed = chain.roles["root"]
    try:
        before.root.verify_delegate("root", signed.signed_bytes, signed.signatures)
    except RepositoryError as error:
        raise BadInputError(
            f"root {before.root.version} does not accept these keys: {error}",
            advice="give --offline once for each medium with a root key",
        ) from error
