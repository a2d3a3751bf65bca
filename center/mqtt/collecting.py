"""Takes off the broker and the disk what nobody needs any more (SPEC 9.21).

Never what TUF lists, what it listed a short while ago, or what an edge says it is fetching.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from center.founding import open_repository, signing
from center.mqtt import content_keys
from center.mqtt.publishing import Publisher
from center.registry import Registry
from center.releases import release_folders
from center.releases.rollouts import Rollouts
from center.settings import CenterSettings, ReleaseSettings
from center.signing.repository import Repository
from protocol.bundle import Manifest
from protocol.errors import MalformedMessageError
from protocol.identity import EdgeId
from protocol.release import ROLES, WHOLE_QUEUE, Kind, Pace, Place, parse_target, target_name
from protocol.topics import Subject, parse

_PATIENCE = timedelta(days=7)
"""So long at most an edge that says it is fetching holds back what is no longer listed."""

_BUNDLES = (Place.CANDIDATE, Place.CANARY, Place.EARLY, Place.ALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """What goes, or would go.

    Attributes:
        targets: names that TUF lists no longer.
        messages: bytes of each message on the broker, by topic.
        folders: releases on the center's disk.
    """

    targets: tuple[str, ...]
    messages: Mapping[str, int]
    folders: tuple[Path, ...]

    def __bool__(self) -> bool:
        return bool(self.targets or self.messages or self.folders)

    def to_json(self) -> dict[str, Any]:
        return {
            "targets": list(self.targets),
            "messages": len(self.messages),
            "bytes": sum(self.messages.values()),
            "folders": [folder.name for folder in self.folders],
        }


def superseded(repository: Repository, *, keep: int, in_use: Collection[int] = (), wide: bool = True) -> list[str]:
    """Names of the targets that nobody is offered any more, but for the newest few.

    Args:
        keep: how many of each place stay listed.
        in_use: numbers of bundles that a rollout may still come back to.
        wide: also those that people have to approve of.
    """
    numbers: dict[Place, list[int]] = {place: [] for place in Place}
    for name in repository.listed():
        place, number = parse_target(name)
        numbers[place].append(number)
    kept = {place: set(sorted(listed)[-keep:]) for place, listed in numbers.items()}
    for place in (Place.ROSTER, Place.POLICY):
        kept[place] = set(sorted(numbers[place])[-1:])
    # Whoever waits for his turn takes the newest release that everybody may take.
    reached = [number for number in numbers[Place.ALL] if _reach(repository, number) == WHOLE_QUEUE]
    kept[Place.ALL] |= {number for number in numbers[Place.ALL] if number >= max(reached, default=0)}
    for place in _BUNDLES:
        kept[place] |= {*in_use}
    kept[Place.PACE] = kept[Place.ALL] if wide else {*numbers[Place.ALL]}
    return [
        target_name(place, number)
        for place, listed in numbers.items()
        if wide or place not in ROLES["wide"]
        for number in sorted(listed)
        if number not in kept[place]
    ]


def prune(repository: Repository, *, keep: int, in_use: Collection[int] = (), wide: bool = False) -> list[str]:
    """Stage the end of superseded targets, for one who signs anyway; see `superseded`."""
    names = superseded(repository, keep=keep, in_use=in_use, wide=wide or not repository.approvals_needed)
    for name in names:
        repository.remove_target(name)
    return names


def collect(voice: Publisher, directory: Path, settings: CenterSettings, *, now: datetime) -> Garbage:
    """Take old targets off the list, what was unlisted long ago off the broker, and old releases off the disk.

    Killed anywhere, the next call goes on.

    Args:
        now: UTC.

    Raises:
        UnavailableError: the broker is away.
    """
    terms, (statuses, in_use) = settings.releases, _hearsay(voice, directory)
    with signing(directory) as repository:
        targets = prune(repository, keep=terms.keep, in_use=in_use)
        if targets:
            voice.publish_metadata(repository.publish_version(now=now))
        needed = _needed(repository, voice)
        voice.ledger.mark_unneeded(needed=needed, among=list(_collectable(voice)), now_ms=_ms(now))
        messages = _due(voice, needed, statuses=statuses, terms=terms, now=now)
        voice.clear(messages)
        content_keys.forget(directory / "keys", but=voice.ledger.key_ids())
        folders = _old_folders(repository, voice, directory, keep=terms.keep, in_use=in_use)
        for folder in folders:
            release_folders.remove(folder)
    return Garbage(targets=tuple(targets), messages=messages, folders=tuple(folders))


def look(voice: Publisher, directory: Path, settings: CenterSettings, *, now: datetime) -> Garbage:
    """What `collect` would take away now; changes nothing, needs no connection."""
    terms, (statuses, in_use) = settings.releases, _hearsay(voice, directory)
    repository = open_repository(directory)
    targets = prune(repository, keep=terms.keep, in_use=in_use)
    messages = _due(voice, _needed(repository, voice), statuses=statuses, terms=terms, now=now)
    folders = _old_folders(repository, voice, directory, keep=terms.keep, in_use=in_use, without=messages)
    return Garbage(targets=tuple(targets), messages=messages, folders=tuple(folders))


def _hearsay(voice: Publisher, directory: Path) -> tuple[Mapping[EdgeId, Mapping[str, Any]], set[int]]:
    """What the edges say, and which bundles a rollout may still come back to."""
    with closing(Registry(directory / "registry.db")) as registry:
        return {**registry.statuses(), **voice.statuses()}, Rollouts(registry).in_use()


def _reach(repository: Repository, number: int) -> int:
    name = target_name(Place.PACE, number)
    file = repository.listed().get(name)
    return Pace.from_custom(name, file.custom).reach if file is not None else 0


def _collectable(voice: Publisher) -> Iterator[str]:
    """Topics of all blocks and targets; metadata have a rule of their own, and all else is always needed."""
    for topic in voice.ledger.sizes():
        taken = parse(topic)
        if taken.subject is Subject.BLOCK or (taken.subject is Subject.TUF and "/" in taken.name):
            yield topic


def _needed(repository: Repository, voice: Publisher) -> set[str]:
    """Topics of everything that is listed."""
    listed = repository.listed()
    needed = {voice.topics.tuf(file.get_prefixed_paths()[0]) for file in listed.values()}
    for name in listed:
        needed |= _blocks(voice, repository.content(name))
    return needed


def _fetched(
    voice: Publisher, since: Mapping[str, int], *, statuses: Mapping[EdgeId, Mapping[str, Any]], earliest_ms: int
) -> set[str]:
    """Topics of what edges say they are fetching, if it was still needed at some time."""
    numbers = {_said(status) for status in statuses.values()} - {None}
    fetched: set[str] = set()
    for topic in _collectable(voice):
        if since.get(topic, earliest_ms) >= earliest_ms and _number(topic) in numbers:
            content = voice.read(topic)
            fetched |= {topic, *_blocks(voice, content)} if content is not None else {topic}
    return fetched


def _said(status: Mapping[str, Any]) -> int | None:
    """The release whose target an edge says it is fetching: hearsay, so anything may stand there."""
    name = status.get("fetching")
    with suppress(MalformedMessageError):
        return parse_target(name)[1] if isinstance(name, str) else None
    return None


def _number(topic: str) -> int | None:
    """The release that a target on the broker belongs to."""
    with suppress(MalformedMessageError):
        place, _, file = parse(topic).name.partition("/")
        return parse_target(f"{place}/{file.partition('.')[2]}")[1]
    return None


def _blocks(voice: Publisher, manifest: bytes) -> set[str]:
    with suppress(MalformedMessageError):  # a roster, a policy, a pace
        files = Manifest.from_bytes(manifest).files.values()
        return {voice.topics.block(block) for entry in files for block in entry.blocks}
    return set()


def _due(
    voice: Publisher,
    needed: Collection[str],
    *,
    statuses: Mapping[EdgeId, Mapping[str, Any]],
    terms: ReleaseSettings,
    now: datetime,
) -> dict[str, int]:
    """Bytes of each message that can be cleared now."""
    since, sizes = voice.ledger.unneeded(), voice.ledger.sizes()
    latest = now - timedelta(hours=terms.keep_hours)
    fetched = _fetched(voice, since, statuses=statuses, earliest_ms=_ms(latest - _PATIENCE))
    return {
        topic: sizes[topic]
        for topic in _collectable(voice)
        if topic not in needed and topic not in fetched and since.get(topic, _ms(now)) <= _ms(latest)
    }


def _old_folders(
    repository: Repository,
    voice: Publisher,
    directory: Path,
    *,
    keep: int,
    in_use: Collection[int],
    without: Collection[str] = (),
) -> list[Path]:
    """Neither the newest few, nor one that is listed, fetched, or just being built.

    Args:
        without: topics of blocks that will have been cleared by then.
    """
    listed = {offer.sha256 for offer in repository.offers().values()}
    on_broker = {at.directory for topic, at in voice.ledger.places() if topic not in without}
    old = []
    for kind in Kind:
        there = [folder for folder in release_folders.folders(directory) if folder.kind is kind]
        signed = [folder for folder in there if folder.number < repository.next_version(kind)]
        for folder in signed[keep:]:
            kept = folder.path.resolve() in on_broker or (kind is Kind.BUNDLE and folder.number in in_use)
            if not kept and folder.sha256 not in listed:
                old.append(folder.path)
    return old


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
