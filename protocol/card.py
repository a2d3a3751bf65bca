"""The card of a bundle or of the shared catalogue: ``card.json``, for people and programs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from protocol import canonical
from protocol.bundle import CARD, FileDigest, check_paths
from protocol.errors import BadInputError, MalformedMessageError
from protocol.identity import FederationId, federation_id
from protocol.release import Kind

CATALOGUE_FILE = "catalogue.jsonl.gz"
MAX_CARD_BYTES = 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleCard:
    """What a bundle is, how it was trained and how well it did.

    Attributes:
        version: release this bundle was first published as; a rollback publishes it again under a higher one.
        catalogue_version: the shared catalogue whose rows the model's item numbers are.
        catalogue_sha256: digest of that ``catalogue.jsonl.gz``.
        submodels: name -> settings that serving needs (history_length, embedding_size, items, candidates).
        training: campaign, rounds, weights_sha256, cohort.
        evaluation: figures measured before signing.
        files: every other file of the bundle.
    """

    version: int
    federation: FederationId
    created_ms: int
    catalogue_version: int
    catalogue_sha256: str
    submodels: Mapping[str, Mapping[str, Any]]
    training: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileDigest]

    def to_bytes(self) -> bytes:
        return canonical.encode(
            {
                "format": 1,
                "kind": Kind.BUNDLE.value,
                "version": self.version,
                "federation": self.federation,
                "created_ms": self.created_ms,
                "catalogue": {"version": self.catalogue_version, "sha256": self.catalogue_sha256},
                "submodels": {name: dict(settings) for name, settings in self.submodels.items()},
                "training": dict(self.training),
                "evaluation": dict(self.evaluation),
                "files": _files_to_json(self.files),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode, refusing anything ``to_bytes`` would not have written.

        Raises:
            MalformedMessageError: not the card of a bundle.
        """
        match _decode(data):
            case {
                "format": 1,
                "kind": Kind.BUNDLE.value,
                "version": int(version),
                "federation": str(federation),
                "created_ms": int(created_ms),
                "catalogue": {"version": int(catalogue_version), "sha256": str(catalogue_sha256)},
                "submodels": dict(submodels),
                "training": dict(training),
                "evaluation": dict(evaluation),
                "files": dict(files),
                **rest,
            } if not rest and all(isinstance(settings, dict) for settings in submodels.values()):
                card = cls(
                    version=version,
                    federation=_federation(federation),
                    created_ms=created_ms,
                    catalogue_version=catalogue_version,
                    catalogue_sha256=catalogue_sha256,
                    submodels=submodels,
                    training=training,
                    evaluation=evaluation,
                    files=_files_from_json(files),
                )
            case _:
                raise MalformedMessageError("not the card of a bundle of format 1")
        if card.to_bytes() != data:  # a field more in one of the inner objects, or a 1 that is written true
            raise MalformedMessageError("not the card of a bundle as we write it")
        return card


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueCard:
    """What the shared catalogue holds.

    Attributes:
        items: number of rows; row 1 is the first line.
        bytes_unpacked: size of the unpacked file, so that a zip bomb is known before it is opened.
    """

    version: int
    items: int
    bytes_unpacked: int
    files: Mapping[str, FileDigest]

    def to_bytes(self) -> bytes:
        return canonical.encode(
            {
                "format": 1,
                "kind": Kind.CATALOGUE.value,
                "version": self.version,
                "items": self.items,
                "bytes_unpacked": self.bytes_unpacked,
                "files": _files_to_json(self.files),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode, refusing anything ``to_bytes`` would not have written.

        Raises:
            MalformedMessageError: not the card of a catalogue.
        """
        match _decode(data):
            case {
                "format": 1,
                "kind": Kind.CATALOGUE.value,
                "version": int(version),
                "items": int(items),
                "bytes_unpacked": int(bytes_unpacked),
                "files": dict(files),
                **rest,
            } if not rest and items >= 0 and bytes_unpacked >= 0:
                card = cls(version=version, items=items, bytes_unpacked=bytes_unpacked, files=_files_from_json(files))
            case _:
                raise MalformedMessageError("not the card of a catalogue of format 1")
        if card.to_bytes() != data:
            raise MalformedMessageError("not the card of a catalogue as we write it")
        return card


Card = BundleCard | CatalogueCard


def parse(kind: Kind, data: bytes) -> Card:
    """The card of a release of this kind.

    Raises:
        MalformedMessageError: not such a card.
    """
    return BundleCard.from_bytes(data) if kind is Kind.BUNDLE else CatalogueCard.from_bytes(data)


def check_listed(card: Card, files: Mapping[str, FileDigest]) -> None:
    """Does the card list what the signed manifest lists?

    Args:
        files: the manifest's, card.json among them.

    Raises:
        MalformedMessageError: they differ; the card would lie to people.
    """
    if dict(card.files) != {path: file for path, file in files.items() if path != CARD}:
        raise MalformedMessageError("the card lists other files than the release holds")


def _decode(data: bytes) -> Any:
    if len(data) > MAX_CARD_BYTES:
        raise MalformedMessageError(f"a card of {len(data)} bytes is too long")
    return canonical.decode(data)


def _federation(name: str) -> FederationId:
    try:
        return federation_id(name)
    except BadInputError as error:
        raise MalformedMessageError(str(error)) from error


def _files_to_json(files: Mapping[str, FileDigest]) -> dict[str, Any]:
    return {path: file.to_json() for path, file in files.items()}


def _files_from_json(value: Mapping[str, Any]) -> dict[str, FileDigest]:
    check_paths(value)
    return {path: FileDigest.from_json(path, file) for path, file in value.items()}
