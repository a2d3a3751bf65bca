"""What an edge is told in ``edge.toml``: read once, frozen, a misspelt key is an error."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

from protocol.configuration import Port, Section, Settings
from protocol.errors import BadInputError

FILE_NAME = "edge.toml"


class SiteSettings(Section):
    """Who this edge is."""

    name: str
    """The site's name in the roster."""
    federation: str = "alone"
    """The federation it has joined."""


class CenterSettings(Section):
    """Where the center is."""

    gateway: str
    """https address that lets this edge reach Flower's Fleet API."""
    broker_host: str
    """MQTT broker: host name or address, as in its certificate."""
    broker_port: Port
    """MQTT broker: TLS port."""


class ServingSettings(Section):
    """The query service."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Port = 8080
    """Port to listen on."""
    require_api_key: bool = True
    """Off only on a machine that nobody else can reach."""


class PolicySettings(Section):
    """What this site refuses, whatever the center says."""

    min_cohort: PositiveInt = 5
    """Smallest cohort this site is summed with; 8 is better, since it survives two dropouts."""
    min_ring: Annotated[int, Field(ge=3)] = 3
    """Likewise where a ring says how a release does; rings are smaller."""
    max_colluders: NonNegativeInt = 1
    """So many of a cohort may conspire with the center and still learn nothing of this site."""
    min_honest: PositiveInt = 3
    """So many honest sites, this one among them, are in every sum at least."""
    groups: bool = False
    """Take part where the roster cuts the federation into groups, whose sums the center sees, to trim outliers."""
    require_noise: bool = False
    """Refuse rounds without differential privacy."""
    max_clip: PositiveFloat = 200.0
    """Largest L2 norm of an update that an announcement may ask for."""
    max_weight_cap: PositiveInt = 10_000_000
    """Largest number of examples of one site that an announcement may let count."""
    max_move: PositiveFloat = 400.0
    """Largest L2 norm of the move of the weights from one round of a campaign to the next."""
    max_words: PositiveInt = 50_000_000
    """Longest vector, in words of 4 bytes."""
    rounds_per_day: PositiveInt = 200
    """Rounds answered in 24 hours at most."""
    purposes: tuple[str, ...] = ("popularity", "train", "evaluate", "health")
    """What rounds may be for."""
    submodels: tuple[str, ...] = ("recommend",)
    """Whose rounds this site takes part in."""


class PrivacySettings(Section):
    """What the users of this site may spend in rounds under differential privacy."""

    epsilon: PositiveFloat | Literal["unlimited"] = "unlimited"
    """Training stops before the epsilon of all rounds together exceeds this; `unlimited` keeps books all the same."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    """The delta that epsilon is stated at: well below one over the number of users."""
    users_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the users that take part in a private training round, by chance: each costs a pass of its own."""


class TrainingSettings(Section):
    """How this edge learns from its own shoppers."""

    max_minutes: PositiveFloat = 20.0
    """Wall-clock budget a round, in minutes; a shop's till must stay fast."""
    threads: PositiveInt = 1
    """Threads that torch may use."""
    niceness: Annotated[int, Field(ge=0, le=19)] = 10
    """Added to the learner's niceness, 0 to 19: serving comes first."""
    idle_seconds: PositiveFloat = 90.0
    """The learner ends after so long without a round."""


class TrialSettings(Section):
    """How a new release is tried out before it stays."""

    seconds: PositiveFloat = 600.0
    """How long it is watched while it serves; the one before stays loaded so long."""
    min_answers: PositiveInt = 100
    """With fewer answers times are not judged, and errors as if there were so many."""
    max_error_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of its answers that may fail."""
    max_p99_ratio: Annotated[float, Field(ge=1)] = 3.0
    """So many times slower than before may the slowest answer in a hundred be."""
    min_overlap: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the old answers to recent queries that the new ones must hold at least."""
    max_ndcg_drop: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of NDCG@10 on this site's newest baskets that it may lose."""
    max_boots: NonNegativeInt = 3
    """After so many restarts from crashes during its trial it is taken back at the next."""


class StoreSettings(Section):
    """The site's own books."""

    durability: Literal["full", "normal"] = "full"
    """`full`: a posted event survives a power cut. `normal`: it survives a crash of the process only, and is faster."""


class EdgeSettings(Settings):
    """All of ``edge.toml``; ``HANSE_EDGE_SERVING__PORT=…`` in the environment stands above the file."""

    model_config = SettingsConfigDict(env_prefix="HANSE_EDGE_")

    site: SiteSettings
    center: CenterSettings | None = None
    """Missing: this edge belongs to no federation and serves what it has."""
    serving: ServingSettings = ServingSettings()
    policy: PolicySettings = PolicySettings()
    privacy: PrivacySettings = PrivacySettings()
    training: TrainingSettings = TrainingSettings()
    trial: TrialSettings = TrialSettings()
    store: StoreSettings = StoreSettings()

    def tied(self) -> CenterSettings:
        """Where the center is.

        Raises:
            BadInputError: this edge has joined no federation.
        """
        if self.center is None:
            raise BadInputError("this edge has joined no federation", advice="hanse-edge join TOKEN")
        return self.center


def load(directory: Path) -> EdgeSettings:
    """Read ``edge.toml`` of an edge's folder.

    Raises:
        BadInputError: there is none, it is no TOML, or a key or value is wrong.
    """
    path = directory / FILE_NAME
    try:
        return EdgeSettings.parse(path.read_text("utf-8"), source=str(path))
    except FileNotFoundError as error:
        raise BadInputError(f"{directory} is no edge", advice="run hanse-edge join TOKEN first") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path} cannot be read: {error}") from error
