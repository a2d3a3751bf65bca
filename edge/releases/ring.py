"""The policy of rings as this edge has accepted it: signed with the pinned key, never older than before, on disk."""

from pathlib import Path

from edge import durable
from edge.keys import load_public
from protocol.identity import EdgeId, FederationId
from protocol.release import Ring
from protocol.rings import RingPolicy

_FILE = Path("trust") / "rings.json"


class Rings:
    """Reads and renews the accepted policy of one edge's folder."""

    def __init__(self, directory: Path, *, federation: FederationId, edge: EdgeId) -> None:
        """Prepare.

        Raises:
            BadInputError: the pinned roster key is missing.
        """
        self._path = directory / _FILE
        self._federation = federation
        self._edge = edge
        self._key = load_public(directory / "trust" / "roster.pub")

    def policy(self) -> RingPolicy | None:
        """The newest accepted policy; None: none has arrived, and everybody is in ring `all`."""
        if not self._path.exists():
            return None
        return RingPolicy.open(self._path.read_bytes(), key=self._key, federation=self._federation)

    def ring(self) -> Ring:
        """The ring this edge is in."""
        policy = self.policy()
        return policy.ring_of(self._edge) if policy else Ring.ALL

    def accept(self, signed: bytes) -> RingPolicy:
        """Take a newer policy.

        Raises:
            BadSignatureError: not signed by the offline key.
            RollbackError: older than the accepted one.
            MalformedMessageError: no policy.
        """
        known = self.policy()
        number = known.number if known else 0
        policy = RingPolicy.open(signed, key=self._key, federation=self._federation, known_number=number)
        if policy.number > number:
            durable.write(self._path, signed)
        return policy
