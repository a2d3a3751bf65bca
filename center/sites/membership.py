"""Who is in, and in which ring: signed offline, told to everybody as TUF targets (SPEC 9.7, 9.8)."""

from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from center.founding import signing
from center.keys import OFFLINE, CenterKeys
from center.mqtt import rekeying, road
from center.mqtt.publishing import Publisher
from center.registry import Registry
from center.settings import CenterSettings
from center.signing.repository import Repository
from center.sites import admission, rings, upkeep
from protocol.errors import BadInputError
from protocol.identity import EdgeId, FederationId, Roster, federation_id
from protocol.release import Place, parse_target, target_name
from protocol.rings import RingPolicy

_FEWEST_FOR_CANARIES = 6
_FEWEST_FOR_EARLY = 12
_CANARIES = 3
_EARLY_SHARE = 4


def admit(
    directory: Path,
    settings: CenterSettings,
    *,
    offline: Path | None = None,
    groups: Sequence[Sequence[EdgeId]] | None = None,
    now: datetime,
) -> tuple[Roster, RingPolicy | None]:
    """Sign a roster of all sites that have joined, see to the rings, and tell everybody.

    Args:
        offline: folder of the offline keys, where they were moved.
        groups: see `admission.sign_roster`.

    Raises:
        BadInputError: no site has joined, or the offline key is not there.
        UnavailableError: the broker does not answer; give it again.
    """
    roster, policy = _sign(directory, settings, offline=offline, groups=groups)
    with road.connected(directory, settings, CenterKeys.load(directory)) as voice:
        publish(voice, directory, settings, now=now)
    return roster, policy


def remove(
    directory: Path,
    settings: CenterSettings,
    site: EdgeId,
    *,
    offline: Path | None = None,
    approvals: Sequence[Ed25519PrivateKey] = (),
    now: datetime,
) -> tuple[Roster, int]:
    """Put a site out: a roster without it, its certificates and topics gone, and a content key that it does not have.

    Killed anywhere it can be given again, and comes to the same end.

    Args:
        approvals: private keys of the people who approve what reaches rings `early` and `all`: it is signed anew.

    Returns:
        The roster without it, and the number of the content key in force.

    Raises:
        BadInputError: no such site has joined, it is the last one, the offline key is not there, or an approval is
            missing; the site is out by then, but holds the old content key.
        UnavailableError: the broker does not answer; give it again.
    """
    with closing(Registry(directory / "registry.db")) as registry:
        if site not in {member.edge for member in registry.sites()}:
            raise BadInputError(f"no site {site} has joined", advice="hanse-center status lists them")
        roster, _ = _sign(directory, settings, offline=offline, without=site)
        upkeep.expel(directory, settings, site, now=now)  # before anything that takes long
        with road.connected(directory, settings, CenterKeys.load(directory)) as voice:
            publish(voice, directory, settings, now=now)
            voice.remove_edge(site)
            rekeying.begin(directory, roster=roster.version)
            key = rekeying.finish(voice, directory, roster=roster, approvals=approvals, now=now)
        registry.remove_site(site)  # last, so that a command that was interrupted can be given again
        registry.record("content key changed", number=key.number, roster=roster.version)
    upkeep.refresh(directory, settings, now=now)
    return roster, key.number


def change_content_key(
    directory: Path, settings: CenterSettings, *, approvals: Sequence[Ed25519PrivateKey] = (), now: datetime
) -> int:
    """Put a new content key in force; one that was interrupted is finished first, and that is all.

    Returns:
        Its number.

    Raises:
        BadInputError: an approval is missing, the files of a release are gone, or the broker has no room.
        UnavailableError: the broker does not answer; give it again.
    """
    keys = CenterKeys.load(directory)
    roster = admission.read_roster(directory, federation=federation_id(settings.federation), keys=keys)
    with road.connected(directory, settings, keys) as voice:
        rekeying.begin(directory, roster=roster.version if roster else 0, always=True)
        key = rekeying.finish(voice, directory, roster=roster, approvals=approvals, now=now)
    with closing(Registry(directory / "registry.db")) as registry:
        registry.record("content key changed", number=key.number, roster=roster.version if roster else 0)
    return key.number


def rings_in_force(directory: Path, settings: CenterSettings) -> RingPolicy:
    """Who is in which ring; before the first policy everybody is in ring `all`.

    Raises:
        BadSignatureError: it was not signed by the offline key.
        MalformedMessageError: it is damaged.
    """
    federation = federation_id(settings.federation)
    policy = rings.read_rings(directory, federation=federation, keys=CenterKeys.load(directory))
    return policy or RingPolicy(federation=federation, number=0)


def choose_rings(
    directory: Path,
    settings: CenterSettings,
    *,
    canary: Iterable[EdgeId],
    early: Iterable[EdgeId],
    offline: Path | None = None,
    now: datetime,
) -> RingPolicy:
    """Sign which sites take a release first, and tell everybody.

    Raises:
        BadInputError: a site is named twice or is not admitted, or the offline key is not there.
        UnavailableError: the broker does not answer; give it again.
    """
    keys = CenterKeys.load(directory)
    federation = federation_id(settings.federation)
    policy = rings.sign_rings(
        directory,
        federation=federation,
        roster=admission.read_roster(directory, federation=federation, keys=keys),
        canary=canary,
        early=early,
        offline=offline,
    )
    with road.connected(directory, settings, keys) as voice:
        publish(voice, directory, settings, now=now)
    return policy


def publish(voice: Publisher, directory: Path, settings: CenterSettings, *, now: datetime) -> None:
    """Tell everybody who is in and in which ring, and give each admitted edge the content key.

    What is told already is not told again. A change of the content key that was interrupted is finished.

    Raises:
        BadInputError: the broker has no room, or what lies here is older than what was told.
        UnavailableError: the broker did not take it.
    """
    keys, federation = CenterKeys.load(directory), federation_id(settings.federation)
    roster = admission.read_roster(directory, federation=federation, keys=keys)
    policy = rings.read_rings(directory, federation=federation, keys=keys)
    if roster is not None:
        voice.publish_keys({member.edge: member.seal for member in roster.members})
    documents = {}
    if roster is not None:
        documents[Place.ROSTER] = roster.version, (directory / admission.ROSTER_FILE).read_bytes()
    if policy is not None:
        documents[Place.POLICY] = policy.number, (directory / rings.RINGS_FILE).read_bytes()
    for place, (number, document) in documents.items():
        voice.check_document(target_name(place, number), document)
    with signing(directory) as repository:
        changed = [_list(repository, place, *document) for place, document in documents.items()]
        published = repository.publish_version(now=now) if any(changed) else repository.published()
        voice.publish_metadata(published)
        interrupted = voice.keys.coming is not None and not repository.approvals_needed
    if interrupted:
        rekeying.finish(voice, directory, roster=roster, now=now)


def default_rings(federation: FederationId, sites: Sequence[EdgeId]) -> tuple[tuple[EdgeId, ...], tuple[EdgeId, ...]]:
    """Canaries and early sites, drawn by hash; none where the federation is too small for rings."""
    drawn = sorted(sites, key=lambda site: sha256(f"hanse/1 ring\0{federation}\0{site}".encode()).digest())
    if len(drawn) < _FEWEST_FOR_CANARIES:
        return (), ()
    early = len(drawn) // _EARLY_SHARE if len(drawn) >= _FEWEST_FOR_EARLY else 0
    return tuple(drawn[:_CANARIES]), tuple(drawn[_CANARIES : _CANARIES + early])


def _sign(
    directory: Path, settings: CenterSettings, *, offline: Path | None, **options: Any
) -> tuple[Roster, RingPolicy | None]:
    federation, keys = federation_id(settings.federation), CenterKeys.load(directory)
    before = admission.read_roster(directory, federation=federation, keys=keys)
    with closing(Registry(directory / "registry.db")) as registry:
        roster = admission.sign_roster(
            directory, federation=federation, registry=registry, offline=offline or directory / OFFLINE, **options
        )
        if before is None or before.version < roster.version:
            registry.record("roster signed", version=roster.version, sites=len(roster.members))
    sites = [member.edge for member in roster.members]
    policy = rings.read_rings(directory, federation=federation, keys=keys)
    if policy is None:
        canary, early = default_rings(federation, sites)
    else:
        canary, early = (tuple(site for site in ring if site in sites) for ring in (policy.canary, policy.early))
    if policy is None and not canary:
        return roster, None
    return roster, rings.sign_rings(
        directory, federation=federation, roster=roster, canary=canary, early=early, offline=offline
    )


def _list(repository: Repository, place: Place, number: int, document: bytes) -> bool:
    """Put a document in the place of the one before; returns whether that is a change."""
    name = target_name(place, number)
    listed = [target for target in repository.listed() if parse_target(target)[0] is place]
    if name in listed and repository.content(name) == document:
        return False
    if newer := [target for target in listed if parse_target(target)[1] > number]:
        raise BadInputError(
            f"{newer[0]} is told already, {place} {number} lies here", advice="restore it from a backup"
        )
    for old in listed:
        repository.remove_target(old)
    repository.add_target(name, document, custom={})
    return True
