"""Signs and publishes what a rollout says: the next stage, or an older bundle in its place (SPEC 9.16).

Every function here may be called again after a crash: what is signed already is only published again.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from center.founding import signing
from center.mqtt import collecting, road
from center.mqtt.publishing import Publisher
from center.releases.rollout import Rollout
from center.settings import CenterSettings
from center.signing.repository import Repository
from protocol.errors import BadInputError
from protocol.release import ROLES, WHOLE_QUEUE, Kind, Offer, Pace, Place, target_name

_FILES = frozenset({Place.CANDIDATE, Place.CANARY, Place.EARLY, Place.ALL})


class ApprovalNeededError(BadInputError):
    """What is to be signed reaches further than the center's own key may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Older:
    """The bundle that takes another's place.

    Attributes:
        version: under which it was signed first.
        folder: where its files lie.
    """

    version: int
    sha256: str
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """Signs in a center's folder and publishes with a voice that is connected.

    Attributes:
        in_use: releases that a rollout may still come back to.
        approvals: keys of people who approve what reaches rings `early` and `all`.
    """

    directory: Path
    settings: CenterSettings
    voice: Publisher
    in_use: Collection[int] = ()
    approvals: Sequence[Ed25519PrivateKey] = ()

    def open_stage(self, rollout: Rollout, *, audit: str) -> None:
        """Offer a release to whom its stage says, by its place and its pace.

        Args:
            audit: head of the audit log.

        Raises:
            ApprovalNeededError: nothing was signed.
            BadInputError: the repository does not list it any more.
            UnavailableError: the broker did not take it; call again.
        """
        stage = rollout.reached
        assert stage is not None
        with signing(self.directory) as repository:
            offers = repository.offers()
            target = target_name(stage.place, rollout.version)
            changed = False
            if target not in offers:
                source = _listed(offers.values(), rollout.version)
                self._check_approval(repository, stage.place)
                repository.add(replace(source, place=stage.place, audit=audit), repository.content(source.target))
                changed = True
            if stage.place is Place.ALL:
                changed |= set_pace(repository, rollout.version, stage.reach)
            changed |= self._drop(repository, Place.CANDIDATE, rollout.version)
            self._publish(repository, changed=changed)

    def go_back(self, rollout: Rollout, older: Older | None, *, audit: str) -> int:
        """Offer an older bundle, under a new number, to all who were offered this release.

        Args:
            older: None: there is none; the release is only withdrawn, who has it keeps it.

        Returns:
            That number; 0 where there is none.

        Raises:
            ApprovalNeededError: nobody more takes the release, but nothing else was signed.
            BadInputError: the older bundle's files are gone.
            UnavailableError: the broker did not take it; call again.
        """
        stage = rollout.reached
        assert stage is not None
        with signing(self.directory) as repository:
            done = _went_back(repository, rollout, older)
            if done:
                self._publish(repository, changed=False)
                return done
            self._check_approval_or_stop(repository, rollout)
            if older is None:
                self._withdraw(repository, rollout)
                return 0
            same = [offer for offer in repository.offers().values() if offer.sha256 == older.sha256]
            if same:
                return self._sign_older(repository, rollout, same[0], repository.content(same[0].target), audit=audit)
        if not older.folder.is_dir():
            raise BadInputError(
                f"the files of release {older.version} are gone from {older.folder}", advice="choose another with --to"
            )
        # Listed no more, so its blocks may be gone from the broker.
        with road.signing_files(self.voice, older.folder, directory=self.directory, settings=self.settings) as (
            repository,
            manifest,
        ):
            if manifest.bundle_digest != older.sha256:
                raise BadInputError(f"{older.folder} does not hold release {older.version} any more")
            like = _listed(repository.offers().values(), rollout.version)
            offer = replace(like, sha256=older.sha256, bytes=manifest.total_bytes, evaluation={})
            return self._sign_older(repository, rollout, offer, manifest.to_bytes(), audit=audit)

    def withdraw_candidate(self, rollout: Rollout) -> None:
        """Take a candidate off the list that will be no release.

        Raises:
            UnavailableError: the broker did not take it; call again.
        """
        with signing(self.directory) as repository:
            self._publish(repository, changed=self._drop(repository, Place.CANDIDATE, rollout.version))

    def _sign_older(self, repository: Repository, rollout: Rollout, like: Offer, content: bytes, *, audit: str) -> int:
        stage = rollout.reached
        assert stage is not None
        version = repository.next_version(Kind.BUNDLE)
        offer = replace(like, place=stage.place, version=version, epoch=self.settings.epoch, audit=audit)
        repository.add(offer, content)
        if stage.place is Place.ALL:
            set_pace(repository, version, WHOLE_QUEUE)
        self._drop(repository, Place.CANDIDATE, rollout.version)
        self._publish(repository, changed=True)
        return version

    def _withdraw(self, repository: Repository, rollout: Rollout) -> None:
        changed = [self._drop(repository, place, rollout.version) for place in sorted(_FILES)]
        self._publish(repository, changed=any(changed))

    def _check_approval_or_stop(self, repository: Repository, rollout: Rollout) -> None:
        """Without approval the way back cannot be signed; but nobody more need take the release meanwhile."""
        stage = rollout.reached
        assert stage is not None
        try:
            self._check_approval(repository, stage.place)
        except ApprovalNeededError:
            if stage.place is Place.ALL and set_pace(repository, rollout.version, 0):
                self._publish(repository, changed=True)
            raise

    def _check_approval(self, repository: Repository, place: Place) -> None:
        if place in ROLES["wide"] and repository.approvals_needed > len(self.approvals):
            raise ApprovalNeededError(
                f"ring {place} wants {repository.approvals_needed} approvals", advice="hanse-center rollout approve"
            )

    def _publish(self, repository: Repository, *, changed: bool) -> None:
        """Publish within the lock, so that nobody publishes something newer in between."""
        if changed:
            if self.approvals:  # the occasion: what people have to approve of cannot be cleared without them
                collecting.prune(repository, keep=self.settings.releases.keep, in_use=self.in_use, wide=True)
            published = repository.publish_version(now=datetime.now(UTC), approvals=self.approvals)
        else:
            published = repository.published()
        self.voice.publish_metadata(published)

    @staticmethod
    def _drop(repository: Repository, place: Place, version: int) -> bool:
        name = target_name(place, version)
        if name not in repository.listed():
            return False
        repository.remove_target(name)
        return True


def set_pace(repository: Repository, version: int, reach: int) -> bool:
    """Stage how far a release has come in the queue of ring `all`; returns whether that is a change."""
    pace = Pace(version=version, reach=reach)
    file = repository.listed().get(pace.target)
    if file is not None and file.custom == pace.to_custom():
        return False
    repository.add_target(pace.target, b"{}", custom=pace.to_custom())
    return True


def _went_back(repository: Repository, rollout: Rollout, older: Older | None) -> int:
    """The number that names the older files already, where a crash came after its signing; else 0."""
    stage = rollout.reached
    assert stage is not None
    return next(
        (
            offer.version
            for offer in repository.offers().values()
            if older is not None and offer.sha256 == older.sha256
            if offer.place is stage.place and offer.version > rollout.version
        ),
        0,
    )


def _listed(offers: Iterable[Offer], version: int) -> Offer:
    found = [offer for offer in offers if offer.version == version and offer.kind is Kind.BUNDLE]
    if not found:
        raise BadInputError(f"release {version} is not in the repository", advice="hanse-center release makes another")
    return found[0]
