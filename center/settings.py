"""What the center is told in ``center.toml``: read once, frozen, a misspelt key is an error."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

from protocol.blocks import MAX_PAYLOAD_BYTES
from protocol.configuration import Port, Section, Settings
from protocol.errors import BadInputError
from protocol.privacy import Privacy, shared_bound

FILE_NAME = "center.toml"


class GatewaySettings(Section):
    """The one door for edges."""

    host: str = "127.0.0.1"
    """Address to listen on; also in the certificate."""
    port: Port = 8443
    """Port to listen on."""


class SuperLinkSettings(Section):
    """Flower's SuperLink, on loopback only."""

    port: Port = 8500
    """Its HTTP port on 127.0.0.1."""


class BrokerSettings(Section):
    """The MQTT broker that carries releases down."""

    host: str = "127.0.0.1"
    """Host name or address, as in the certificate."""
    port: Port = 8883
    """TLS port."""
    max_message_bytes: Annotated[int, Field(ge=MAX_PAYLOAD_BYTES)] = 1024 * 1024
    """Largest payload that the broker takes; a block has 262,192 bytes."""
    max_retained_messages: NonNegativeInt = 0
    """Retained messages that the broker keeps; 0: it sets no limit."""
    max_retained_bytes: NonNegativeInt = 0
    """Bytes of retained payloads that the broker keeps; 0: it sets no limit."""


class ReleaseSettings(Section):
    """What is kept of old releases."""

    keep: PositiveInt = 3
    """So many of the newest releases stay listed, and so many folders below `releases/` stay on this disk."""
    keep_hours: NonNegativeFloat = 24.0
    """How long what is listed no longer stays on the broker, for edges that are still fetching it."""


class RoundSettings(Section):
    """How rounds run."""

    deadline_seconds: PositiveFloat = 900.0
    """How long a round waits for the updates of its cohort."""
    step_seconds: PositiveFloat = 120.0
    """How long edges have for each of the short steps: keys, signatures, shares."""
    grace_seconds: NonNegativeFloat = 2.0
    """How long the rest is waited for once enough edges have taken a short step."""
    straggler_share: NonNegativeFloat = 0.5
    """Likewise for updates, as a share of the time that enough of them took."""
    epoch_hours: PositiveFloat = 24.0
    """How long the keys of an epoch last: who steals them later opens no round of an earlier epoch."""
    gather_seconds: PositiveFloat = 60.0
    """How long a round waits for admitted edges to come online before it starts without them."""
    min_cohort: PositiveInt = 5
    """Smallest cohort that a round is announced to; each edge has its own floor as well."""
    clip: PositiveFloat = 100.0
    """L2 norm that a local update is clipped to."""
    coordinate_clip: PositiveFloat = 2.0
    """Largest absolute value of one coordinate of a weighted local update."""
    word_bits: Annotated[int, Field(ge=8, le=32)] = 20
    """Width of a word of the update on the wire; fewer bits round more coarsely."""
    trim: NonNegativeInt = 1
    """Where the roster has groups: so many of them are left out at each end, coordinate by coordinate."""
    max_drop: Annotated[float, Field(gt=0, le=1)] = 0.2
    """A step after which validation NDCG is lower by more than this share is taken back."""
    weight_cap: PositiveInt = 300_000
    """Examples of one site that count at most."""


class PrivacySettings(Section):
    """Differential privacy of all events of one user at one site; off unless `noise_multiplier` is set."""

    noise_multiplier: NonNegativeFloat = 0.0
    """Standard deviation of a sum's noise over what one user can change; 0: no noise. 1 costs an epsilon of 5 in one
    round, 4 one of 15 in 100 rounds."""
    user_clip: PositiveFloat = 1.0
    """L2 norm that everything one user contributes to a round is clipped to."""
    colluders: NonNegativeInt = 1
    """So many edges may leave their noise out, and there is still enough."""
    users: PositiveInt = 10_000
    """So many users of one site count at most; the larger, the coarser the words."""

    def announced(self) -> Privacy | None:
        """What a round's announcement says of it."""
        if not self.noise_multiplier:
            return None
        return Privacy(noise_multiplier=self.noise_multiplier, user_clip=self.user_clip, colluders=self.colluders)


class ModelSettings(Section):
    """The `recommend` submodel and how it is trained."""

    embedding_size: PositiveInt = 64
    """Width d of item vectors."""
    history_length: PositiveInt = 50
    """How many past items the model looks at."""
    min_support: PositiveInt = 20
    """An item has an id embedding of its own from so many events in the whole federation on."""
    epochs: PositiveInt = 1
    """Local passes a round."""
    batch_size: PositiveInt = 32
    """Sequences a step."""
    learning_rate: PositiveFloat = 0.004
    """Of the edges' Adam."""
    negatives: PositiveInt = 256
    """Sampled negatives a step, shared by the batch."""
    server_learning_rate: PositiveFloat = 1.0
    """Step on the averaged update."""
    server_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Momentum of the center's step, from 0 to below 1."""
    seed: NonNegativeInt = 7
    """Of the initial weights."""


class GateSettings(Section):
    """What a release must hold before it is signed, and its candidate at the sites before any of them serves it."""

    min_top10_overlap: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Share of the full-precision top 10 that the quantized artifact must keep."""
    min_ndcg: Annotated[float, Field(ge=0, le=1)] = 0.97
    """NDCG@10 of the quantized order, with the full-precision top 10 as the truth."""
    max_ndcg_drop: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Share by which NDCG@10 at the sites may be lower than that of what they serve now."""
    max_segment_drop: Annotated[float, Field(ge=0, le=1)] = 0.10
    """Likewise among new users, among new items, and in the tail."""
    min_events: PositiveInt = 100
    """So many held-out baskets must have been measured in the whole federation."""
    min_segment_events: PositiveInt = 100
    """A segment of fewer is not judged."""


class RolloutSettings(Section):
    """How a release goes from ring to ring."""

    bake_seconds: NonNegativeFloat = 3600.0
    """How long a stage stays as it is before its health is asked for."""
    first_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of ring `all` that is let in first."""
    growth: Annotated[float, Field(gt=1)] = 3.0
    """Factor by which that share grows from stage to stage."""
    min_sites: PositiveInt = 10
    """A ring `all` of fewer sites is let in at once."""
    min_ring: Annotated[int, Field(ge=3)] = 3
    """Fewer sites are never asked for a sum of their own. A smaller ring is judged by who keeps the release."""
    min_answers: NonNegativeInt = 0
    """So many sites of a stage must have tried the release before it goes on; 0: half of them."""
    max_failure_share: Annotated[float, Field(ge=0, le=1)] = 0.34
    """The release is taken back when more of a stage's sites than this went back by themselves."""
    max_error_share: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Likewise when more of their answers than this failed."""
    max_ndcg_drop: Annotated[float, Field(ge=0, le=1)] = 0.10
    """Likewise when their NDCG@10 fell by more than this share."""
    min_events: PositiveInt = 200
    """NDCG@10 of fewer events than this judges nothing."""
    patience_hours: PositiveFloat = 24.0
    """A rollout that can neither go on nor back pauses after this long."""


class CenterSettings(Settings):
    """All of ``center.toml``; ``HANSE_CENTER_GATEWAY__PORT=…`` in the environment stands above the file."""

    model_config = SettingsConfigDict(env_prefix="HANSE_CENTER_")

    federation: str
    """The federation's name."""
    epoch: PositiveInt = 1
    """Fencing token: raised by one when a standby takes over; edges refuse a lower one."""
    gateway: GatewaySettings = GatewaySettings()
    superlink: SuperLinkSettings = SuperLinkSettings()
    broker: BrokerSettings = BrokerSettings()
    releases: ReleaseSettings = ReleaseSettings()
    rounds: RoundSettings = RoundSettings()
    privacy: PrivacySettings = PrivacySettings()
    model: ModelSettings = ModelSettings()
    gate: GateSettings = GateSettings()
    rollout: RolloutSettings = RolloutSettings()

    @property
    def private_bound(self) -> float | None:
        """The bound that all words of a round with noise share, or None where there is no noise."""
        announced = self.privacy.announced()
        return shared_bound(announced, users=self.privacy.users) if announced else None


def load(directory: Path) -> CenterSettings:
    """Read ``center.toml`` of a center's folder.

    Raises:
        BadInputError: there is none, it is no TOML, or a key or value is wrong.
    """
    path = directory / FILE_NAME
    try:
        return CenterSettings.parse(path.read_text("utf-8"), source=str(path))
    except FileNotFoundError as error:
        raise BadInputError(f"{directory} is no center", advice="run hanse-center init first") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path} cannot be read: {error}") from error
