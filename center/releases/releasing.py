"""`hanse-center release` and `catalogue`: build, check, sign, publish.

Only what was checked is signed, only what is signed is published; killed anywhere, the release before stays in force.
A release is signed as a candidate first; from there `hanse-center serve` takes it through gate and rings.
"""

import shutil
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from center import durable
from center.founding import open_repository
from center.keys import CenterKeys
from center.mqtt import road
from center.mqtt.publishing import Publisher
from center.registry import Registry
from center.releases import catalogue as shared
from center.releases import evaluation, stages
from center.releases.export import FEWEST_CANDIDATES, SUBMODEL, Exported, export
from center.releases.orders import Orders
from center.releases.rollout import Rollout
from center.releases.rollouts import Rollouts, moving
from center.rounds import averaging
from center.rounds.campaign import Folder
from center.rounds.learning import School
from center.settings import CenterSettings
from center.signing.repository import Repository
from center.sites import admission, rings
from protocol.bundle import CARD, FileDigest, Manifest
from protocol.card import CATALOGUE_FILE, BundleCard, CatalogueCard
from protocol.errors import BadInputError
from protocol.identity import federation_id
from protocol.models import weights as model_weights
from protocol.models.weights import Weights
from protocol.release import Kind, Offer, Place, parse_target


def publish_catalogue(source: Path, *, directory: Path, settings: CenterSettings) -> dict[str, Any]:
    """Sign and publish a shared catalogue.

    Raises:
        BadInputError: the table cannot be a catalogue.
        UnavailableError: the broker does not answer; run it again.
    """
    version = open_repository(directory).next_version(Kind.CATALOGUE)
    folder = _empty(directory / "releases" / f"catalogue-{version}")
    card = shared.build(source, folder, version=version)
    with (
        closing(Registry(directory / "registry.db")) as registry,
        road.connected(directory, settings, CenterKeys.load(directory)) as voice,
        road.signing_files(voice, folder, directory=directory, settings=settings) as (repository, manifest),
    ):
        offer = _offer(Place.CATALOGUE, version, manifest, registry=registry, settings=settings, evaluation={})
        _publish(offer, manifest, repository, voice)
        figures = {"items": card.items, "bytes": manifest.total_bytes}
        digest = manifest.bundle_digest
        registry.add_release(Kind.CATALOGUE, version, sha256=digest, card=figures, now_ms=_now_ms())
    return {"version": version, "sha256": digest, **figures}


def release(
    campaign: str | None,
    *,
    directory: Path,
    settings: CenterSettings,
    completed: int | None = None,
    waived: str = "",
) -> dict[str, Any]:
    """Export a campaign's weights, check the served artifact, sign and publish it as a candidate.

    Args:
        completed: the weights after so many training rounds; None: the newest.
        waived: why the sites need not measure it before the first ring serves it; empty: they must.

    Raises:
        BadInputError: another release is on its way, there is no such campaign, or it has no such weights.
        UntrustedReleaseError: the artifact is too far from full precision; nothing was signed.
        UnavailableError: the broker does not answer; run it again.
    """
    with closing(Registry(directory / "registry.db")) as registry:
        Rollouts(registry).check_idle()  # before a minute of work
        row = registry.campaign(campaign)
        model, rounds = _weights(Folder(path=directory / "campaigns" / row.id), row.id, completed)
        school = School.open(directory, settings.model, registry=registry)
        popularity = school.counted(directory / "campaigns")
        exported = export(model, school.tokens(), popularity)
        agreement = evaluation.compare(
            exported,
            popularity,
            history_length=model.config.history_length,
            rng=np.random.default_rng(settings.model.seed),
        )
        evaluation.check(agreement, gate=settings.gate)
        version = open_repository(directory).next_version(Kind.BUNDLE)
        place = _empty(directory / "releases" / f"bundle-{version}")
        training = {"campaign": row.id, "rounds": rounds, "weights_sha256": sha256(model.to_bytes()).hexdigest()}
        card = _card(exported, model, school, version=version, settings=settings, training=training, agreed=agreement)
        for path, data in exported.files.items():
            durable.write(place / path, data)
        durable.write(place / CARD, card.to_bytes())
        figures = {
            "campaign": row.id,
            "rounds": rounds,
            "fp32_bytes": len(exported.fp32),
            "served_bytes": exported.served_bytes,
            "top10_overlap": agreement.top10_overlap,
            "ndcg_against_fp32": agreement.ndcg,
        }
        return propose(
            version,
            place,
            directory=directory,
            settings=settings,
            registry=registry,
            figures=figures,
            evaluation=agreement.to_json(),
            waived=waived,
        )


def propose(
    version: int,
    folder: Path,
    *,
    directory: Path,
    settings: CenterSettings,
    registry: Registry,
    figures: Mapping[str, Any],
    evaluation: Mapping[str, float],
    waived: str = "",
) -> dict[str, Any]:
    """Sign and publish a folder as a candidate, and begin its rollout.

    Args:
        figures: what the registry is to know of it.
        evaluation: what signed metadata are to say of it.

    Raises:
        BadInputError: another release is on its way, or the folder cannot be one.
        ApprovalNeededError: the gate was waived and the first ring has to be approved; it waits for that.
        UnavailableError: the broker does not answer; run it again.
    """
    rollouts = Rollouts(registry)
    with road.connected(directory, settings, CenterKeys.load(directory)) as voice, moving(directory):
        rollouts.check_idle()
        with road.signing_files(voice, folder, directory=directory, settings=settings) as (repository, manifest):
            offer = _offer(
                Place.CANDIDATE, version, manifest, registry=registry, settings=settings, evaluation=evaluation
            )
            for name in repository.offers():
                if parse_target(name)[0] is Place.CANDIDATE:  # of a release that was refused, or killed right here
                    repository.remove_target(name)
            _publish(offer, manifest, repository, voice)
        told = {"sha256": offer.sha256, "bytes": offer.bytes, "folder": folder.name, **figures}
        registry.add_release(Kind.BUNDLE, version, sha256=offer.sha256, card=told, now_ms=_now_ms())
        rollout = _begin(offer, directory=directory, settings=settings, rollouts=rollouts, waived=waived)
        if waived:
            orders = Orders(directory=directory, settings=settings, registry=registry)
            rollout = orders.carry_out(rollout, voice)
    return {"version": version, "state": rollout.state.value, **told}


def _begin(offer: Offer, *, directory: Path, settings: CenterSettings, rollouts: Rollouts, waived: str) -> Rollout:
    federation, keys = federation_id(settings.federation), CenterKeys.load(directory)
    members = rings.members_by_ring(
        rings.read_rings(directory, federation=federation, keys=keys),
        admission.read_roster(directory, federation=federation, keys=keys),
    )
    before = rollouts.in_force()
    rollout = Rollout.begin(
        offer.version,
        offer.sha256,
        previous=before.version if before else 0,
        stages=stages.plan(members, offer.sha256, settings.rollout),
        now_ms=_now_ms(),
        waived=waived,
    )
    rollouts.begin(rollout)
    return rollout


def _weights(folder: Folder, campaign: str, completed: int | None) -> tuple[Weights, int]:
    """Weights of a campaign, and after how many training rounds."""
    if not folder.state.exists():
        raise BadInputError(f"campaign {campaign} has no weights yet", advice="hanse-center status shows how far it is")
    if completed is None:
        state = averaging.ServerState.from_bytes(folder.state.read_bytes())
        return state.model, state.completed
    path = folder.weights(completed)
    if not path.exists():
        raise BadInputError(
            f"campaign {campaign} has no weights of round {completed}", advice="hanse-center status lists its rounds"
        )
    return model_weights.load(path.read_bytes()), completed


def _card(
    exported: Exported,
    model: Weights,
    school: School,
    *,
    version: int,
    settings: CenterSettings,
    training: Mapping[str, Any],
    agreed: evaluation.Agreement,
) -> BundleCard:
    catalogue = CatalogueCard.from_bytes((school.directory / CARD).read_bytes())
    config = model.config
    return BundleCard(
        version=version,
        federation=federation_id(settings.federation),
        created_ms=_now_ms(),
        catalogue_version=catalogue.version,
        catalogue_sha256=catalogue.files[CATALOGUE_FILE].sha256,
        submodels={
            SUBMODEL: {
                "history_length": config.history_length,
                "embedding_size": config.embedding_size,
                "items": config.items,
                "candidates": FEWEST_CANDIDATES,
            }
        },
        training=dict(training),
        evaluation=agreed.to_json(),
        files={path: FileDigest.of(data) for path, data in exported.files.items()},
    )


def _offer(
    place: Place,
    version: int,
    manifest: Manifest,
    *,
    registry: Registry,
    settings: CenterSettings,
    evaluation: Mapping[str, float],
) -> Offer:
    return Offer(
        place=place,
        version=version,
        sha256=manifest.bundle_digest,
        bytes=manifest.total_bytes,
        submodels=() if place is Place.CATALOGUE else (SUBMODEL,),
        epoch=settings.epoch,
        # TUF's canonical JSON has no fractions.
        evaluation={name: f"{value:.6f}" for name, value in evaluation.items()},
        audit=registry.audit_head(),
    )


def _publish(offer: Offer, manifest: Manifest, repository: Repository, voice: Publisher) -> None:
    repository.add(offer, manifest.to_bytes())
    voice.publish_metadata(repository.publish_version(now=datetime.now(UTC)))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _empty(folder: Path) -> Path:
    """A folder for a version that was never signed; what an interrupted attempt left goes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
