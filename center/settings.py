"""What the center is told in ``center.toml``: read once, frozen, a misspelt key is an error."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

from protocol.configuration import Port, Section, Settings
from protocol.errors import BadInputError

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
    """How long a round waits for its cohort."""
    gather_seconds: PositiveFloat = 60.0
    """How long a round waits for admitted edges to come online before it starts without them."""
    min_cohort: PositiveInt = 5
    """Smallest cohort that a round is announced to; each edge has its own floor as well."""
    clip: PositiveFloat = 100.0
    """L2 norm that a local update is clipped to."""
    weight_cap: PositiveInt = 1_000_000
    """Examples of one site that count at most."""


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
    model: ModelSettings = ModelSettings()
    gate: GateSettings = GateSettings()


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
