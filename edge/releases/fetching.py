"""What the federation offers, and how it comes onto this disk: metadata, documents, blocks (SPEC 9.6)."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

# tuf re-exports its public names without saying so to type checkers.
from tuf.api.metadata import TargetFile  # type: ignore[attr-defined]

from edge.releases.assembly import Assembly, Fetched
from edge.releases.connection import Connection
from edge.releases.content_keys import ContentKeys
from edge.releases.metadata import Listing, RetainedFetcher, our_words, read_targets
from edge.releases.retained import Pace
from protocol import release
from protocol.blocks import MAX_PAYLOAD_BYTES, BlockCipher
from protocol.bundle import MAX_MANIFEST_BYTES, Manifest
from protocol.errors import BadSignatureError, MalformedMessageError, UntrustedReleaseError
from protocol.release import RELEASED, Offer, Place, Ring, parse_target
from protocol.sealing import ContentKey
from protocol.topics import Topics

_RELEASES = {*RELEASED[Ring.CANARY], Place.CANDIDATE, Place.CATALOGUE}
_PUBLISHING_SECONDS = 1.0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Newest:
    """All that the federation says now, each word of it signed as TUF demands.

    Attributes:
        bundles: those that are released to some ring, by target name.
        candidates: bundles that are to be measured and never served, by target name.
        pace: version -> its reach, as far as one is signed.
        roster: version and signed document of the newest; its own signature is the caller's to check.
        policy: likewise, of the newest policy of rings.
        era: counts up when a stolen key of role `releases` was replaced; what was signed in an older era binds nobody.
    """

    bundles: Mapping[str, Offered]
    candidates: Mapping[str, Offered]
    catalogue: Offered | None
    pace: Mapping[int, int]
    roster: tuple[int, bytes] | None
    policy: tuple[int, bytes] | None
    era: int = 1


class Releases:
    """What the federation offers, and how it comes onto this disk."""

    def __init__(
        self,
        connection: Connection,
        *,
        topics: Topics,
        keys: ContentKeys,
        root: bytes,
        folder: Path,
        pace: Pace | None = None,
    ) -> None:
        """Prepare.

        Args:
            keys: what was sealed to this edge; may grow meanwhile.
            root: the TUF root, from the enrolment token.
            folder: for metadata (``tuf/``) and downloads (``blocks/``).
        """
        self._connection = connection
        self._topics = topics
        self._keys = keys
        self._root = root
        self._metadata = folder / "tuf"
        self._downloads = folder / "blocks"
        self._pace = pace or Pace()
        self._documents: dict[str, tuple[str, bytes]] = {}

    def newest(self) -> Newest:
        """Refresh the metadata; all that they say now.

        Raises:
            UnavailableError: the broker does not answer, or nothing is published yet.
            ExpiredReleaseError: only expired metadata are offered: a replay, a dead center, or a wrong clock.
            RollbackError: older metadata than this edge has seen.
            BadSignatureError: not signed by the keys of the root.
            UntrustedError: encrypted under a key that this edge has not got.
            UntrustedReleaseError: likewise, they cannot be used.
            NoSpaceError: the disk is full.
        """
        with our_words():
            listing, fetcher = self._read()
            offered = {
                name: Offered(offer=Offer.from_custom(name, target.custom), expires=expires, target=target)
                for name, (target, expires) in listing.targets.items()
                if parse_target(name)[0] in _RELEASES
            }
            paces = [
                release.Pace.from_custom(name, target.custom)
                for name, (target, _) in listing.targets.items()
                if parse_target(name)[0] is Place.PACE
            ]
            catalogues = [found for found in offered.values() if found.offer.place is Place.CATALOGUE]
            return Newest(
                bundles={name: at for name, at in offered.items() if at.offer.place in RELEASED[Ring.CANARY]},
                candidates={name: at for name, at in offered.items() if at.offer.place is Place.CANDIDATE},
                catalogue=max(catalogues, key=lambda found: found.offer.version, default=None),
                pace={pace.version: pace.reach for pace in paces},
                roster=self._document(Place.ROSTER, listing, fetcher),
                policy=self._document(Place.POLICY, listing, fetcher),
                era=listing.era,
            )

    def _read(self) -> tuple[Listing, RetainedFetcher]:
        try:
            return self._read_once()
        except BadSignatureError:  # metadata are published one after the other: they may not fit together yet
            time.sleep(min(_PUBLISHING_SECONDS, self._pace.silence))
            return self._read_once()

    def _read_once(self) -> tuple[Listing, RetainedFetcher]:
        fetcher = self._fetcher()
        with our_words():
            base = self._topics.tuf("")
            return read_targets(self._metadata, base=base, fetcher=fetcher, root=self._root), fetcher

    def fetch(
        self,
        offered: Offered,
        *,
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
        offer = offered.offer
        manifest, key = self._manifest(offered)
        folder = self._downloads / (offer.place if offer.place is Place.CANDIDATE else offer.kind)
        elsewhere = [path for path in self._downloads.glob("*/*") if path.parent != folder]
        assembly = Assembly(manifest, folder=folder, cipher=BlockCipher(key), known=[*known, *elsewhere])
        with closing(assembly):
            missing = assembly.missing()
            topics = {self._topics.block(block): block for block in missing}
            messages = self._connection.read(topics, pace=self._pace, limit=MAX_PAYLOAD_BYTES)
            with closing(messages):
                for done, (topic, payload) in enumerate(messages, start=1):
                    assembly.put(topics[topic], payload)
                    if progress is not None:
                        progress(done, len(missing))
            directory = assembly.finish()
        return Fetched(directory=directory, offer=offer, manifest=manifest, expires=offered.expires)

    def _manifest(self, offered: Offered) -> tuple[Manifest, ContentKey]:
        """The manifest, and the key that it and its blocks are encrypted under."""
        offer, target = offered.offer, offered.target
        if target.length > MAX_MANIFEST_BYTES:
            raise MalformedMessageError(f"the manifest of {offer.target} has {target.length} bytes")
        with our_words():
            data, key = self._target(target, self._fetcher())
        manifest = Manifest.from_bytes(data)
        if manifest.total_bytes != offer.bytes:
            raise UntrustedReleaseError(f"{offer.target} has {manifest.total_bytes} bytes, {offer.bytes} were offered")
        if manifest.bundle_digest != offer.sha256:
            raise UntrustedReleaseError(f"{offer.target} holds other files than were offered")
        return manifest, key

    def _document(self, place: Place, listing: Listing, fetcher: RetainedFetcher) -> tuple[int, bytes] | None:
        """Number and content of the newest target at a place; it is downloaded once a process."""
        numbers = [number for at, number in map(parse_target, listing.targets) if at is place]
        if not numbers:
            return None
        number = max(numbers)
        target, _ = listing.targets[release.target_name(place, number)]
        sha256, data = self._documents.get(place, ("", b""))
        if sha256 != target.hashes["sha256"]:
            data, _ = self._target(target, fetcher)
            self._documents[place] = (target.hashes["sha256"], data)
        return number, data

    def _target(self, target: TargetFile, fetcher: RetainedFetcher) -> tuple[bytes, ContentKey]:
        if target.length > MAX_MANIFEST_BYTES or "sha256" not in target.hashes:
            raise UntrustedReleaseError(f"{target.path} of {target.length} bytes is no target of ours")
        data, key = fetcher.read(self._topics.tuf(target.get_prefixed_paths()[0]), target.length)
        target.verify_length_and_hashes(data)
        return data, key

    def _fetcher(self) -> RetainedFetcher:
        return RetainedFetcher(self._connection, topics=self._topics, keys=self._keys, pace=self._pace)
