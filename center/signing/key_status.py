"""Which keys sign what, how long it lasts, and which of them lie on this machine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from center.signing.key_files import offline_files, online_files
from center.signing.metadata import WIDE, Chain
from center.signing.repository import Repository
from protocol.diagnosis import Finding
from protocol.release import ROLES

CHECK = "signatures"
_WARN_BEFORE = timedelta(days=60)
_OFFLINE_ROLES = ("root", "targets")
_LEAST_LEFT = {"timestamp": timedelta(days=3), "snapshot": timedelta(days=7)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleStatus:
    """One TUF role.

    Attributes:
        version: of its metadata.
        expires: UTC.
        threshold: how many of its keys must sign.
        keys: key id -> where its private half was found; None: not here.
    """

    role: str
    version: int
    expires: datetime
    threshold: int
    keys: dict[str, Path | None]


def look(directory: Path, *, offline: Sequence[Path] = ()) -> list[RoleStatus]:
    """Every role of a center's repository.

    Raises:
        BadInputError: there is no repository, or it is damaged.
    """
    chain = Repository(directory / "tuf", keys=()).chain
    files = [*online_files(directory), *offline_files(offline)]
    found = {file.key_id: file.path for file in files}
    return [
        RoleStatus(
            role=role,
            version=chain.number(role),
            expires=chain.roles[role].signed.expires,
            threshold=chain.terms(role).threshold,
            keys={name: found.get(name) for name in chain.terms(role).keyids},
        )
        for role in chain.roles
    ]


def examine(directory: Path, *, now: datetime) -> Finding:
    """Does everything live long enough, and has every rotation been ended?

    Raises:
        BadInputError: there is no repository, or it is damaged.
    """
    chain = Repository(directory / "tuf", keys=()).chain
    troubles = [*_ending(chain, now), *_left_over(directory, chain)]
    return troubles[0] if troubles else Finding(check=CHECK)


def _ending(chain: Chain, now: datetime) -> Iterator[Finding]:
    for role in (*_OFFLINE_ROLES, *ROLES, "snapshot", "timestamp"):
        ends = chain.roles[role].signed.expires
        if ends - now >= _LEAST_LEFT.get(role, _WARN_BEFORE):
            continue
        fix = "hanse-center serve signs it again"
        if role in _OFFLINE_ROLES:
            fix = "hanse-center keys renew --offline DIR, once for each medium with offline keys"
        elif role == WIDE and chain.approvers():
            fix = "hanse-center keys renew --offline DIR --approve-with FILE, the key of somebody who approves"
        verb = "ended" if ends <= now else "end"
        yield Finding(check=CHECK, problem=f"the signatures of {role} {verb} on {ends:%Y-%m-%d}", fix=fix)


def _left_over(directory: Path, chain: Chain) -> Iterator[Finding]:
    for file in online_files(directory):
        if file.is_next:
            role = file.path.name.removesuffix(".next.key")
            yield Finding(
                check=CHECK,
                problem=f"the rotation of {role} was interrupted",
                fix=f"give hanse-center keys rotate {role} again",
            )
        elif not any(file.key_id in chain.terms(role).keyids for role in chain.roles):
            role = file.path.name.removesuffix(".key")
            yield Finding(check=CHECK, problem=f"{file.path} is not trusted", fix=f"hanse-center keys rotate {role}")
