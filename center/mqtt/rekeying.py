"""Changes the content key: everything that is in force is described and encrypted anew (SPEC 9.4).

The new key is on disk before anything else, everything is there to be fetched before metadata offer it, and the key is
in force once they do. Killed anywhere, giving the command again goes on; `hanse-center serve` does it, too. Edges go on
serving meanwhile, and those in the middle of a download finish it: what lies under the old key stays for a while.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from center.founding import signing
from center.mqtt import content_keys
from center.mqtt.publishing import Publisher
from center.mqtt.release_blocks import manifest_of
from center.releases import release_folders
from center.signing.repository import Repository
from protocol.bundle import Manifest
from protocol.errors import BadInputError
from protocol.identity import Roster
from protocol.release import ROLES, Offer
from protocol.sealing import ContentKey

_log = structlog.get_logger(__name__)


def begin(directory: Path, *, roster: int, always: bool = False) -> None:
    """Draw a new content key, durably, unless the last one was drawn for this roster or a later one.

    Args:
        roster: its version.
        always: also if it was, but no other change of key is under way.
    """
    with signing(directory):
        keys = content_keys.load(directory / "keys")
        if keys.roster < roster or (always and keys.coming is None):
            content_keys.draw(directory / "keys", roster=roster)


def finish(
    voice: Publisher,
    directory: Path,
    *,
    roster: Roster | None,
    now: datetime,
    approvals: Sequence[Ed25519PrivateKey] = (),
) -> ContentKey:
    """Put the coming content key in force; without one, nothing but what a crash left undone is published.

    Args:
        roster: whose members get the key.
        approvals: private keys of the people who approve what reaches rings `early` and `all`: it is signed anew.

    Returns:
        The key in force.

    Raises:
        BadInputError: an approval is missing, the files of a release are gone, or the broker has no room.
        UnavailableError: the broker did not take everything; give it again.
    """
    folder = directory / "keys"
    with signing(directory) as repository:
        coming = content_keys.load(folder).coming
        if coming is not None:
            check_approvals(repository, approvals)
            described = _describe(repository, directory, key=coming)
            voice.check_room(*(manifest for manifest, _ in described.values()))
            for manifest, place in described.values():
                voice.publish_blocks(place, manifest, key=coming)
            if roster is not None:
                voice.publish_keys({member.edge: member.seal for member in roster.members})
            for name, (manifest, _) in described.items():
                if repository.content(name) != manifest.to_bytes():
                    repository.replace_target(name, manifest.to_bytes())
            repository.publish_version(now=now, approvals=approvals)
            content_keys.put_in_force(folder)
            _log.info("content key changed", number=coming.number)
        voice.publish_metadata(repository.published())
        return content_keys.load(folder).newest


def check_approvals(repository: Repository, approvals: Sequence[Ed25519PrivateKey]) -> None:
    """Can what reaches rings `early` and `all` be signed anew?

    Raises:
        BadInputError: an approval is missing.
    """
    wide = [name for name, offer in repository.offers().items() if offer.place in ROLES["wide"]]
    if wide and repository.approvals_needed > len(approvals):
        raise BadInputError(
            f"{len(wide)} releases for rings early and all must be signed anew, with {repository.approvals_needed} "
            "approvals, before the content key can change",
            advice="give it again with --approve-with KEY for each person who approves",
        )


def _describe(repository: Repository, directory: Path, *, key: ContentKey) -> Mapping[str, tuple[Manifest, Path]]:
    """New manifests of everything that is in force, and where the files lie, by target name."""
    made: dict[str, tuple[Manifest, Path]] = {}
    found: dict[str, tuple[Manifest, Path]] = {}
    offers = repository.offers()
    for name, offer in offers.items():
        if offer.sha256 not in made:
            place = release_folders.folder_of(directory, offer)
            if place is not None:
                made[offer.sha256] = manifest_of(place, key=key), place
        if offer.sha256 in made:
            found[name] = made[offer.sha256]
        elif _is_newest(offer, offers.values()):
            raise BadInputError(
                f"the files of {name} are not in {directory / release_folders.FOLDER}",
                advice="restore the folder from a backup, or publish a new release",
            )
        else:
            repository.remove_target(name)
            _log.warning("a release whose files are gone is not listed any more", target=name)
    return found


def _is_newest(offer: Offer, offers: Iterable[Offer]) -> bool:
    return all(other.version <= offer.version for other in offers if other.place is offer.place)
