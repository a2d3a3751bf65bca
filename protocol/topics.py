"""MQTT topics and what travels on each (SPEC 9.5). MQTT 3.1.1 features only, QoS 1, retained.

hanse/1/<federation>/
├── key/<edge>        content key, sealed to that edge, signed by the center
├── round             wake: which round is open, signed by the center
├── tuf/<file>        TUF metadata and targets, encrypted; roots are plain
├── block/<digest>    one encrypted block
├── inventory         what the center believes to be on the broker; the center's own notebook
└── status/<edge>     what an edge runs; written by that edge
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from protocol.errors import BadInputError, MalformedMessageError
from protocol.identity import EdgeId, FederationId, edge_id, federation_id

CENTER = EdgeId("center")
"""The center's own name on the broker; no site may be called so."""

_PREFIX = "hanse/1"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}(/[A-Za-z0-9][A-Za-z0-9._-]{0,200})?")


class Subject(StrEnum):
    """What a topic is about."""

    KEY = "key"
    ROUND = "round"
    TUF = "tuf"
    BLOCK = "block"
    INVENTORY = "inventory"
    STATUS = "status"


_WITHOUT_NAME = {Subject.ROUND, Subject.INVENTORY}
_OF_ONE = {Subject.KEY, Subject.STATUS}


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one federation."""

    federation: FederationId

    @property
    def base(self) -> str:
        return f"{_PREFIX}/{self.federation}"

    @property
    def round(self) -> str:
        return f"{self.base}/{Subject.ROUND}"

    @property
    def inventory(self) -> str:
        return f"{self.base}/{Subject.INVENTORY}"

    def common(self) -> tuple[str, ...]:
        """Filters for what every edge may read."""
        subjects = [subject for subject in Subject if subject not in {*_OF_ONE, Subject.INVENTORY}]
        return tuple(f"{self.base}/{subject}{'' if subject in _WITHOUT_NAME else '/#'}" for subject in subjects)

    def key(self, edge: EdgeId) -> str:
        return f"{self.base}/{Subject.KEY}/{edge}"

    def tuf(self, file: str) -> str:
        """A file of the TUF repository: ``3.snapshot.json``, ``bundle/<digest>.4.json``."""
        return f"{self.base}/{Subject.TUF}/{file}"

    def block(self, digest: str) -> str:
        return f"{self.base}/{Subject.BLOCK}/{digest}"

    def status(self, edge: EdgeId) -> str:
        return f"{self.base}/{Subject.STATUS}/{edge}"

    def statuses(self) -> str:
        """A filter for the statuses of all edges."""
        return f"{self.base}/{Subject.STATUS}/+"


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A topic taken apart.

    Attributes:
        name: edge, file or digest; empty where the subject has none.
    """

    federation: FederationId
    subject: Subject
    name: str


def parse(topic: str) -> Topic:
    """Take a topic apart.

    Raises:
        MalformedMessageError: not one of ours, a wildcard, or a name that cannot be.
    """
    parts = topic.split("/", 4)
    try:
        if "/".join(parts[:2]) != _PREFIX:
            raise MalformedMessageError(f"{topic!r} is not one of our topics")
        federation, subject = federation_id(parts[2]), Subject(parts[3])
    except (ValueError, IndexError, BadInputError) as error:
        raise MalformedMessageError(f"{topic!r} is not one of our topics") from error
    name = parts[4] if len(parts) > 4 else ""  # noqa: PLR2004 - the fifth part is the name
    if not _is_name(subject, name, given=len(parts) > 4):  # noqa: PLR2004
        raise MalformedMessageError(f"{topic!r} names no {subject}")
    return Topic(federation=federation, subject=subject, name=name)


def _is_name(subject: Subject, name: str, *, given: bool) -> bool:
    if subject in _WITHOUT_NAME:
        return not given
    if subject is Subject.BLOCK:
        return _DIGEST.fullmatch(name) is not None
    if subject is Subject.TUF:
        return _FILE.fullmatch(name) is not None
    try:
        edge_id(name)
    except BadInputError:
        return False
    return True


def may_read(identity: str, topic: str, *, federation: FederationId) -> bool:
    """May this identity subscribe to exactly this topic? Edges use no wildcards; the center may (SPEC 9.5)."""
    if identity == CENTER:
        return topic.startswith(f"{_PREFIX}/{federation}/")
    try:
        asked = parse(topic)
    except MalformedMessageError:
        return False
    if asked.federation != federation:
        return False
    if asked.subject in _OF_ONE:
        return asked.name == identity
    return asked.subject is not Subject.INVENTORY


def may_write(identity: str, topic: str, *, federation: FederationId) -> bool:
    """May this identity publish here? An edge writes its own status and nothing else (SPEC 9.5)."""
    try:
        meant = parse(topic)
    except MalformedMessageError:
        return False
    if meant.federation != federation:
        return False
    return identity == CENTER or (meant.subject is Subject.STATUS and meant.name == identity)
