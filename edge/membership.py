"""The roster as this edge has accepted it: checked against the pinned key, never older than before, on disk."""

from pathlib import Path

from edge import durable
from edge.keys import load_public
from protocol.errors import NotAdmittedError
from protocol.identity import FederationId, Roster

_FILE = Path("trust") / "roster.json"


class Membership:
    """Reads and renews the accepted roster of one edge's folder."""

    def __init__(self, directory: Path, *, federation: FederationId) -> None:
        """Prepare.

        Raises:
            BadInputError: the pinned roster key is missing.
        """
        self._path = directory / _FILE
        self._federation = federation
        self._key = load_public(directory / "trust" / "roster.pub")

    def roster(self) -> Roster:
        """The newest accepted roster.

        Raises:
            NotAdmittedError: none has arrived yet.
        """
        if not self._path.exists():
            raise NotAdmittedError(
                "no roster has arrived yet", advice="the federation operator runs hanse-center admit"
            )
        return Roster.open(self._path.read_bytes(), key=self._key, federation=self._federation)

    def accept(self, signed: bytes) -> Roster:
        """Take a newer roster.

        Raises:
            BadSignatureError: not signed by the offline key.
            RollbackError: older than the accepted one.
            MalformedMessageError: no roster.
        """
        known = self.roster().version if self._path.exists() else 0
        roster = Roster.open(signed, key=self._key, federation=self._federation, known_version=known)
        if roster.version > known:
            durable.write(self._path, signed)
        return roster
