"""What a campaign needs around it in order to ask edges anything."""

from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from center.registry import Registry
from center.rounds.epochs import InForce
from protocol.identity import Roster
from protocol.transport import Transport


class StoppedError(Exception):
    """The center was told to stop; the campaign goes on when it serves again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """What is needed to ask edges anything.

    Attributes:
        roster: reads the signed roster in force; sites are admitted and removed while a campaign runs.
        wake: tells edges over MQTT that a round is coming, and until when (ms UTC).
        stopped: the center is shutting down.
        in_force: the key epoch that all who ask share.
    """

    roster: Callable[[], Roster]
    center_epoch: int
    center_key: Ed25519PrivateKey
    transport: Transport
    registry: Registry
    wake: Callable[[str, int], None]
    stopped: Callable[[], bool]
    now_ms: Callable[[], int]
    in_force: InForce = field(default_factory=InForce)

    def raise_if_stopped(self) -> None:
        """Raise StoppedError if the center has been told to stop."""
        if self.stopped():
            raise StoppedError
