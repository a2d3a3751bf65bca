"""Changing whom the federation trusts: rotation, renewal, people who approve (SPEC 9.19).

A new key is written beside the old one, then everything is signed, then the timestamp puts it in force, then the new
key takes the old one's place. Killed anywhere, the same command given again ends what it began.
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

# tuf re-exports its public names without saying so to type checkers.
from tuf.api.metadata import Root, Targets  # type: ignore[attr-defined]

from center.founding import exclusive
from center.signing.key_files import KeyFile, offline_files, online_files, online_place
from center.signing.metadata import ERA, WIDE, Chain, key_id, public_half
from center.signing.repository import OnlineKeys, Repository
from protocol.errors import BadInputError, FederationError
from protocol.release import ROLES

ROTATED = ("root", "targets", *OnlineKeys._fields)
"""Roles whose keys can be replaced."""

_MEDIA = "give --offline once for each medium with offline keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What a change of keys came to.

    Attributes:
        new: role -> ids of the keys that are trusted from now on.
        old: role -> ids of the keys that are not trusted any more.
        finished: roles whose rotation had been interrupted and has been ended now; no other key was made for them.
        versions: role -> number of its new metadata.
        places: id of a new key -> file of its private half.
    """

    new: dict[str, list[str]] = field(default_factory=dict)
    old: dict[str, list[str]] = field(default_factory=dict)
    finished: list[str] = field(default_factory=list)
    versions: dict[str, int]
    places: dict[str, Path]


def rotate(
    directory: Path, roles: Sequence[str], *, offline: Sequence[Path], replace: Sequence[str] = (), now: datetime
) -> Changed:
    """Replace the keys of roles, all at once; from then on the old keys sign nothing.

    Args:
        offline: folders with offline keys: a threshold of the root's for all but `releases` and `membership`, which
            want the key of the top-level targets; what a rotated role signs is signed again.
        replace: ids of root keys, or their beginnings, to be replaced (lost, stolen); by default all that `offline`
            holds.

    Raises:
        BadInputError: no such role, no such key, or too few offline keys; nothing has changed.
    """
    for role in roles:
        if role not in ROTATED:
            raise BadInputError(f"no key of a role {role!r} can be rotated", advice=f"one of {', '.join(ROTATED)}")
    with _ceremony(directory, offline, now) as ceremony:
        for role in dict.fromkeys(roles):
            if role == "root" and role not in ceremony.finished:
                ceremony.replace_root_keys(replace)
            elif role not in ceremony.finished:
                ceremony.replace_key(role)
        return ceremony.end()


def renew(
    directory: Path, *, offline: Sequence[Path], approvals: Sequence[Ed25519PrivateKey] = (), now: datetime
) -> Changed:
    """Give root and top-level targets, and what wants approvals, another whole life under the same keys.

    Raises:
        BadInputError: too few offline keys, or an approval is missing.
    """
    with _ceremony(directory, offline, now) as ceremony:
        ceremony.change_root()
        ceremony.change_targets()
        ceremony.renew_wide(approvals)
        return ceremony.end()


def add_approver(
    directory: Path,
    public_key: Ed25519PublicKey,
    *,
    offline: Sequence[Path],
    approvals: int | None = None,
    approving: Sequence[Ed25519PrivateKey] = (),
    now: datetime,
) -> Changed:
    """Let a person's key approve what leaves the canary ring.

    Args:
        approvals: how many of these people must; as many as before, and at least one, by default.
        approving: private keys of as many of them: what is out already wants their signatures as well.

    Raises:
        BadInputError: the key approves already, or there are fewer such people than approvals, or a key is missing.
    """
    with _ceremony(directory, offline, now) as ceremony:
        ceremony.add_approver(public_key)
        ceremony.set_approvals(approvals, approving=approving)
        return ceremony.end()


def remove_approver(
    directory: Path,
    name: str,
    *,
    offline: Sequence[Path],
    approvals: int | None = None,
    approving: Sequence[Ed25519PrivateKey] = (),
    now: datetime,
) -> Changed:
    """Let a key approve nothing any more; the last one to go ends approvals.

    Args:
        name: id of the key, or its beginning.

    Raises:
        BadInputError: no such key approves, or a key is missing that must sign again what this one had signed.
    """
    with _ceremony(directory, offline, now) as ceremony:
        ceremony.remove_approver(name)
        ceremony.set_approvals(approvals, approving=approving)
        return ceremony.end()


@contextmanager
def _ceremony(directory: Path, offline: Sequence[Path], now: datetime) -> Iterator["_Ceremony"]:
    folders = list(dict.fromkeys(folder.resolve() for folder in offline))
    with exclusive(directory):
        ceremony = _Ceremony(directory.resolve(), folders, now=now)
        try:
            yield ceremony
        except FederationError:
            ceremony.discard()
            raise


class _Ceremony:
    """One change of keys, with the repository to itself."""

    def __init__(self, directory: Path, folders: Sequence[Path], *, now: datetime) -> None:
        self._directory, self._folders, self._now = directory, folders, now
        files = [*online_files(directory), *offline_files(folders)]
        self._repository = Repository(directory / "tuf", keys=[file.key for file in online_files(directory)])
        self._before = self._repository.chain
        self.finished = [role for file in files if file.is_next for role in self._settle(file)]
        self._offline = {file.key_id: file for file in offline_files(folders)}
        self._new: list[KeyFile] = []
        self._approving: Sequence[Ed25519PrivateKey] = ()
        self.root: Root | None = None
        self.targets: Targets | None = None

    def _settle(self, file: KeyFile) -> list[str]:
        """What an interrupted rotation left: a key in force takes its place, another one was never trusted."""
        roles = [role for role in (*ROTATED, WIDE) if file.key_id in self._before.terms(role).keyids]
        if roles:
            file.take_place()
        else:
            file.path.unlink()
        return roles

    def change_root(self) -> Root:
        self.root = self.root or self._before.copy().root
        return self.root

    def change_targets(self) -> Targets:
        self.targets = self.targets or self._before.copy().targets
        return self.targets

    def replace_root_keys(self, names: Sequence[str]) -> None:
        root = self.change_root()
        held = list(root.roles["root"].keyids)
        going = [_find(name, held) for name in names] or [name for name in held if name in self._offline]
        if not going:
            raise BadInputError(f"no key of root {root.version} lies there", advice=_MEDIA)
        for name in dict.fromkeys(going):
            key = self._make(self._place(name, f"root-{secrets.token_hex(4)}.key"))
            root.revoke_key(name, "root")
            root.add_key(public_half(key), "root")

    def replace_key(self, role: str) -> None:
        old = self._before.terms(role).keyids[0]
        online = role in OnlineKeys._fields
        key = self._make(online_place(self._directory, role) if online else self._place(old, f"{role}.key"))
        trusting = self.change_targets() if role in ROLES else self.change_root()
        for name in (role, WIDE) if role == "releases" else (role,):
            trusting.revoke_key(old, name)
            trusting.add_key(public_half(key), name)
        if role == "releases":
            trusting.unrecognized_fields[ERA] += 1

    def renew_wide(self, approving: Sequence[Ed25519PrivateKey]) -> None:
        self._approving = approving
        if approving:
            self._repository.renew(WIDE)

    def add_approver(self, public_key: Ed25519PublicKey) -> None:
        if key_id(public_key) in self._before.terms(WIDE).keyids:
            raise BadInputError(f"key {key_id(public_key)[:16]} signs there already")
        self.change_targets().add_key(public_half(public_key), WIDE)

    def remove_approver(self, name: str) -> None:
        self.change_targets().revoke_key(_find(name, self._before.approvers()), WIDE)

    def set_approvals(self, approvals: int | None, *, approving: Sequence[Ed25519PrivateKey]) -> None:
        self._approving = approving
        terms = self.change_targets().get_delegated_role(WIDE)
        people = len(terms.keyids) - 1
        wanted = min(people, max(1, terms.threshold - 1)) if approvals is None else approvals
        if not 0 <= wanted <= people:
            raise BadInputError(f"{people} people cannot give {wanted} approvals")
        terms.threshold = 1 + wanted

    def _place(self, old: str, name: str) -> Path:
        """Where the key lies that another one is to replace; a lost one's successor lies on the first medium."""
        if old in self._offline:
            return self._offline[old].path
        if not self._folders:
            raise BadInputError("the new key has no place to lie in", advice=_MEDIA)
        return self._folders[0] / name

    def _make(self, place: Path) -> Ed25519PrivateKey:
        self._new.append(KeyFile.new(place))
        return self._new[-1].key

    def discard(self) -> None:
        """Nobody trusts the new keys: they go."""
        for file in self._new:
            file.path.unlink(missing_ok=True)

    def end(self) -> Changed:
        """Sign, put in force, let the new keys take their places."""
        self._repository.trust(
            root=self.root,
            targets=self.targets,
            keys=[*self._approving, *(file.key for file in (*self._offline.values(), *self._new))],
            online=[file.key for file in self._new if file.path.parent == self._directory / "keys"],
            now=self._now,
        )
        new, self._new = self._new, []
        places = {file.key_id: file.take_place() for file in new}
        after = self._repository.chain
        return Changed(
            new=_difference(after, self._before),
            old=_difference(self._before, after),
            places=places,
            finished=self.finished,
            versions={
                role: after.number(role) for role in after.roles if after.number(role) != self._before.number(role)
            },
        )


def _difference(some: Chain, others: Chain) -> dict[str, list[str]]:
    keys = {
        role: [name for name in some.terms(role).keyids if name not in others.terms(role).keyids]
        for role in (*ROTATED, WIDE)
    }
    return {role: names for role, names in keys.items() if names}


def _find(name: str, names: Sequence[str]) -> str:
    found = [full for full in names if full.startswith(name)]
    if len(found) != 1 or not name:
        raise BadInputError(f"no key {name!r} is trusted for that", advice="hanse-center keys status lists key ids")
    return found[0]
