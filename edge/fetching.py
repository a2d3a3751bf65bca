"""Releases as python-tuf sees them, with a fetcher that reads retained MQTT messages instead of HTTP (SPEC 9.1)."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)

# tuf re-exports its public names without saying so to type checkers.
from tuf.api.metadata import Metadata, Root, TargetFile, Targets  # type: ignore[attr-defined]
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig  # type: ignore[attr-defined]

from edge import durable
from edge.assembly import Assembly, Fetched, disk_errors
from edge.connection import Connection, Pace
from protocol.blocks import BlockCipher
from protocol.bundle import MAX_MANIFEST_BYTES, Manifest
from protocol.errors import (
    BadSignatureError,
    ExpiredReleaseError,
    FederationError,
    MalformedMessageError,
    RollbackError,
    UnavailableError,
    UntrustedReleaseError,
)
from protocol.release import Kind, Offer, is_release
from protocol.sealing import ContentKey, decrypt
from protocol.topics import Topics

_ROOT = "root.json"
_NO_SUCH_ROOT = 404


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A release that verified metadata offer.

    Attributes:
        expires: UTC, when these metadata stop being believed.
        target: the TUF target: length and digests of the manifest.
    """

    offer: Offer
    expires: datetime
    target: TargetFile


class RetainedFetcher(FetcherInterface):
    """Hands python-tuf what is retained at a topic; its "URLs" are our topics."""

    def __init__(self, connection: Connection, *, topics: Topics, key: ContentKey, pace: Pace) -> None:
        self._connection = connection
        self._topics = topics
        self._key = key
        self._pace = pace
        self._newest_root: tuple[int, bytes] | None = None

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.removeprefix(self._topics.tuf(""))
        version = name.removesuffix(f".{_ROOT}")
        if version.isdigit():
            return iter([self._root(int(version), url)])
        return iter([decrypt(self._read(url), key=self._key, topic=url)])

    def _root(self, version: int, topic: str) -> bytes:
        # On a broker "nothing there" and "not yet arrived" look alike, so root.json says which versions can exist.
        # It is only a hint: python-tuf checks the signatures of each root on the way.
        if self._newest_root is None:
            data = self._read(self._topics.tuf(_ROOT))
            self._newest_root = (_root_version(data), data)
        newest, data = self._newest_root
        if version > newest:
            raise DownloadHTTPError(f"root {version} does not exist", _NO_SUCH_ROOT)
        return data if version == newest else self._read(topic)

    def _read(self, topic: str) -> bytes:
        with closing(self._connection.read([topic], pace=self._pace)) as pieces:
            return next(pieces)[1]


class Releases:
    """What the federation offers, and how it comes onto this disk."""

    def __init__(
        self, connection: Connection, *, topics: Topics, root: bytes, folder: Path, pace: Pace | None = None
    ) -> None:
        """Prepare.

        Args:
            root: the first TUF root, from the enrolment token.
            folder: for metadata (``tuf/``) and downloads (``blocks/``).
        """
        self._connection = connection
        self._topics = topics
        self._root = root
        self._metadata = folder / "tuf"
        self._downloads = folder / "blocks"
        self._pace = pace or Pace()

    def newest(self, *, key: ContentKey) -> dict[Kind, Offered]:
        """Refresh the metadata; the newest release of each kind.

        Raises:
            UnavailableError: the broker does not answer, or nothing is published yet.
            ExpiredReleaseError: only expired metadata are offered: a replay, a dead center, or a wrong clock.
            RollbackError: older metadata than this edge has seen.
            BadSignatureError: not signed by the keys of the root.
            NoSpaceError: the disk is full.
        """
        with _our_words():
            updater = self._updater(key)
            updater.refresh()
            listed = Metadata[Targets].from_file(str(self._metadata / "targets.json")).signed
            newest: dict[Kind, Offered] = {}
            for name in sorted(filter(is_release, listed.targets)):
                target = updater.get_targetinfo(name)
                if target is None:
                    raise UntrustedReleaseError(f"{name} is listed and cannot be looked up")
                offer = Offer.from_custom(name, target.custom)
                if offer.kind not in newest or newest[offer.kind].offer.version < offer.version:
                    newest[offer.kind] = Offered(offer=offer, expires=listed.expires, target=target)
        durable.flush_directory(self._metadata)
        return newest

    def fetch(
        self,
        offered: Offered,
        *,
        key: ContentKey,
        known: Sequence[Path] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> Fetched:
        """Bring a release onto this disk: manifest, then only the blocks that are not here yet.

        Args:
            known: directories of older releases, whose blocks may be the same.
            progress: told blocks done and blocks to fetch.

        Raises:
            UnavailableError: blocks did not arrive; the next call goes on from here.
            DamagedBlockError: a block is not what the manifest names.
            UntrustedReleaseError: the manifest cannot be believed.
            NoSpaceError: the disk is full.
        """
        manifest = self._manifest(offered, key)
        folder = self._downloads / offered.offer.kind
        assembly = Assembly(manifest, folder=folder, cipher=BlockCipher(key), known=known)
        missing = assembly.missing()
        topics = {self._topics.block(block): block for block in missing}
        with closing(self._connection.read(topics, pace=self._pace)) as pieces:
            for done, (topic, payload) in enumerate(pieces, start=1):
                assembly.put(topics[topic], payload)
                if progress is not None:
                    progress(done, len(missing))
        directory = assembly.finish()
        return Fetched(directory=directory, offer=offered.offer, manifest=manifest, expires=offered.expires)

    def _manifest(self, offered: Offered, key: ContentKey) -> Manifest:
        if offered.target.length > MAX_MANIFEST_BYTES:
            raise MalformedMessageError(f"the manifest of {offered.offer.target} has {offered.target.length} bytes")
        self._downloads.mkdir(parents=True, exist_ok=True)
        path = self._downloads / f"{offered.offer.kind}.manifest"
        with _our_words():
            updater = self._updater(key)
            if updater.find_cached_target(offered.target, str(path)) is None:
                updater.download_target(offered.target, str(path))
        manifest = Manifest.from_bytes(path.read_bytes())
        if manifest.total_bytes != offered.offer.bytes:
            raise MalformedMessageError(f"{offered.offer.target} has {manifest.total_bytes} bytes, not as offered")
        return manifest

    def _updater(self, key: ContentKey) -> Updater:
        self._metadata.mkdir(parents=True, exist_ok=True)
        base = self._topics.tuf("")
        return Updater(
            str(self._metadata),
            base,
            target_base_url=base,
            fetcher=RetainedFetcher(self._connection, topics=self._topics, key=key, pace=self._pace),
            config=UpdaterConfig(prefix_targets_with_hash=True),
            bootstrap=self._root,
        )

    def forget_downloads(self) -> None:
        """Remove what was fetched and is installed, or will not be."""
        shutil.rmtree(self._downloads, ignore_errors=True)


def _root_version(data: bytes) -> int:
    root: Metadata[Any] = Metadata.from_bytes(data)
    if not isinstance(root.signed, Root):
        raise MalformedMessageError("what is published as TUF root is none")
    return root.signed.version


@contextmanager
def _our_words() -> Iterator[None]:
    """Say python-tuf's errors in ours."""
    try:
        with disk_errors("cannot store the release metadata"):
            yield
    except DownloadLengthMismatchError as error:
        raise UntrustedReleaseError(f"longer than signed metadata allow: {error}") from error
    except DownloadError as error:
        if isinstance(error.__cause__, FederationError):
            raise error.__cause__ from None
        raise UnavailableError(f"release metadata cannot be read: {error}") from error
    except ExpiredMetadataError as error:
        raise ExpiredReleaseError(
            f"the release metadata have expired: {error}", advice="check this machine's clock, then the center"
        ) from error
    except BadVersionNumberError as error:
        raise RollbackError(f"older or mixed release metadata: {error}") from error
    except (UnsignedMetadataError, LengthOrHashMismatchError) as error:
        raise BadSignatureError(f"the release metadata are not signed as they must be: {error}") from error
    except RepositoryError as error:
        raise UntrustedReleaseError(f"the release metadata cannot be used: {error}") from error
