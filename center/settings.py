"""What the center is told in ``center.toml``: read once, frozen, a misspelt key is an error."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

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
    """What a release must hold before it is signed."""

    min_top10_overlap: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Share of the full-precision top 10 that the quantized artifact must keep."""
    min_ndcg: Annotated[float, Field(ge=0, le=1)] = 0.97
    """NDCG@10 of the quantized order, with the full-precision top 10 as the truth."""


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
    rounds: RoundSettings = RoundSettings()
    privacy: PrivacySettings = PrivacySettings()
    model: ModelSettings = ModelSettings()
    gate: GateSettings = GateSettings()

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
