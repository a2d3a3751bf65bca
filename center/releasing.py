"""`hanse-center release` and `catalogue`: build, check, sign, publish.

Only what was checked is signed, only what is signed is published; killed anywhere, the release before stays in force.
"""

import shutil
import time
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from center import averaging, durable, evaluation, road
from center import catalogue as shared
from center.admission import content_key
from center.campaign import Folder
from center.export import FEWEST_CANDIDATES, SUBMODEL, Exported, export
from center.founding import open_repository, signing
from center.keys import CenterKeys
from center.learning import School
from center.publishing import manifest_of
from center.registry import Registry
from center.settings import CenterSettings
from protocol.bundle import CARD, FileDigest
from protocol.card import CATALOGUE_FILE, BundleCard, CatalogueCard
from protocol.errors import BadInputError
from protocol.identity import federation_id
from protocol.release import Kind, Offer
from protocol.sealing import digest


def publish_catalogue(source: Path, *, directory: Path, settings: CenterSettings) -> dict[str, Any]:
    """Sign and publish a shared catalogue.

    Raises:
        BadInputError: the table cannot be a catalogue.
        UnavailableError: the broker does not answer; run it again.
    """
    repository = open_repository(directory)
    version = repository.next_version(Kind.CATALOGUE)
    folder = _empty(directory / "releases" / f"catalogue-{version}")
    card = shared.build(source, folder, version=version)
    sent = _sign_and_publish(Kind.CATALOGUE, version, folder, directory=directory, settings=settings, evaluation={})
    figures = {"items": card.items, "bytes": sent["bytes"]}
    Registry(directory / "registry.db").add_release(
        Kind.CATALOGUE, version, sha256=sent["sha256"], card=figures, now_ms=time.time_ns() // 1_000_000
    )
    return {"version": version, "sha256": sent["sha256"], **figures}


def release(campaign: str | None, *, directory: Path, settings: CenterSettings) -> dict[str, Any]:
    """Export a campaign's weights, check the served artifact, sign and publish it.

    Raises:
        BadInputError: there is no such campaign, or it has trained nothing yet.
        UntrustedReleaseError: the artifact is too far from full precision; nothing was signed.
        UnavailableError: the broker does not answer; run it again.
    """
    registry = Registry(directory / "registry.db")
    row = registry.campaign(campaign)
    folder = Folder(path=directory / "campaigns" / row.id)
    if not folder.state.exists():
        raise BadInputError(f"campaign {row.id} has no weights yet", advice="hanse-center status shows how far it is")
    state = averaging.ServerState.from_bytes(folder.state.read_bytes())
    school = School.open(directory, settings.model, registry=registry)
    popularity = school.counted(directory / "campaigns")
    exported = export(state.model, school.tokens(), popularity)
    agreement = evaluation.compare(
        exported,
        popularity,
        history_length=state.model.config.history_length,
        rng=np.random.default_rng(settings.model.seed),
    )
    evaluation.check(agreement, gate=settings.gate)
    version = open_repository(directory).next_version(Kind.BUNDLE)
    place = _empty(directory / "releases" / f"bundle-{version}")
    card = _card(exported, state, school, version=version, campaign=row.id, settings=settings, agreement=agreement)
    for path, data in exported.files.items():
        durable.write(place / path, data)
    durable.write(place / CARD, card.to_bytes())
    sent = _sign_and_publish(
        Kind.BUNDLE, version, place, directory=directory, settings=settings, evaluation=agreement.to_json()
    )
    figures = {
        "sha256": sent["sha256"],
        "campaign": row.id,
        "rounds": state.completed,
        "bytes": sent["bytes"],
        "fp32_bytes": len(exported.fp32),
        "served_bytes": exported.served_bytes,
        "top10_overlap": agreement.top10_overlap,
        "ndcg_against_fp32": agreement.ndcg,
    }
    registry.add_release(Kind.BUNDLE, version, sha256=sent["sha256"], card=figures, now_ms=time.time_ns() // 1_000_000)
    return {"version": version, **figures}


def _card(
    exported: Exported,
    state: averaging.ServerState,
    school: School,
    *,
    version: int,
    campaign: str,
    settings: CenterSettings,
    agreement: evaluation.Agreement,
) -> BundleCard:
    catalogue = CatalogueCard.from_bytes((school.directory / CARD).read_bytes())
    config = state.model.config
    return BundleCard(
        version=version,
        federation=federation_id(settings.federation),
        created_ms=time.time_ns() // 1_000_000,
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
        training={
            "campaign": campaign,
            "rounds": state.completed,
            "weights_sha256": sha256(state.weights()).hexdigest(),
        },
        evaluation=agreement.to_json(),
        files={path: FileDigest.of(data) for path, data in exported.files.items()},
    )


def _sign_and_publish(
    kind: Kind,
    version: int,
    folder: Path,
    *,
    directory: Path,
    settings: CenterSettings,
    evaluation: dict[str, float],
) -> dict[str, Any]:
    keys = CenterKeys.load(directory)
    manifest = manifest_of(folder, key=content_key(keys))
    content = manifest.to_bytes()
    offer = Offer(
        kind=kind,
        version=version,
        submodels=(SUBMODEL,) if kind is Kind.BUNDLE else (),
        epoch=settings.epoch,
        # TUF's canonical JSON has no fractions.
        evaluation={name: f"{value:.6f}" for name, value in evaluation.items()},
        bytes=manifest.total_bytes,
    )
    with road.connected(directory, settings, keys) as voice:
        # Blocks first: metadata must never offer what is not there to be fetched.
        sent = voice.publish_blocks(folder, manifest)
        with signing(directory) as repository:
            repository.add(offer, content)
            voice.publish_metadata(repository.publish_version(now=datetime.now(UTC)))
    return {"sha256": digest(content), "bytes": manifest.total_bytes, "sent": sent}


def _empty(folder: Path) -> Path:
    """A folder for a version that was never signed; what an interrupted attempt left goes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
