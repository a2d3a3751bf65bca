"""What an edge is told in ``edge.toml``: read once, frozen, a misspelt key is an error."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

from edge.search.languages import Language
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
    deadline_ms: PositiveFloat = 100.0
    """A submodel that would keep an answer longer than this is left out of it, or stopped."""
    remembered_mb: NonNegativeInt = 16
    """Memory for what was worked out lately of the same past; 0: each answer asks the model anew."""
    max_queries: PositiveInt = 256
    """Queries answered at the same time; one more gets 429."""
    query_wait_seconds: PositiveFloat = 0.5
    """A query that would have to wait longer for its turn gets 429."""
    max_ingests: PositiveInt = 128
    """Requests with events or items that are written at the same time; one more gets 429."""
    ingest_wait_seconds: PositiveFloat = 0.25
    """Likewise for events and items; less than for queries, so that shoppers are served while a till catches up."""
    max_streams: PositiveInt = 8
    """Streams of events that are read at the same time; one more gets 429."""
    max_connections: PositiveInt = 512
    """Open connections; one more takes the place of an idle one."""
    head_seconds: PositiveFloat = 10.0
    """The head of a request must be there after so long."""
    body_seconds: PositiveFloat = 30.0
    """Its body may fall so far behind 1,024 bytes a second, and a reader of an answer may rest so long."""
    idle_seconds: PositiveFloat = 75.0
    """A connection is closed after so long without a request."""
    memory_mb: NonNegativeInt = 0
    """Memory the process stays under, in MB of 2**20 bytes: what would not fit is refused. 0: 80 % of the machine."""
    access_log: Literal["none", "failures", "all"] = "failures"
    """Which requests get a line on standard error; `failures` are answers of 500 and above. No line names a user."""


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
    niceness: Annotated[int, Field(ge=0, le=19)] = 19
    """Of the learner and its session, 0 to 19: serving comes first; 19: it runs only when nothing else wants to."""
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
    retention_days: PositiveInt | None = None
    """Events older than this are deleted, and users of whom nothing is left; missing: they are kept for ever."""


class TillSettings(Section):
    """Events that tills and kiosks publish on this site's own MQTT broker."""

    host: str = ""
    """Host name or address of the broker; empty: tills are not listened to."""
    port: Port = 1883
    """Port of the broker."""
    topic: str = "shop/events"
    """Topic of the events; may hold the wildcards `+` and `#`."""
    username: str = ""
    """Name at the broker; empty: none is sent."""
    password_file: Path | None = None
    """File that holds the password and nothing else; a relative path begins in the edge's folder."""
    ca: Path | None = None
    """Certificate authority of the broker, PEM; missing: no TLS, for a broker on this machine."""
    client_id: str = ""
    """Under this id the broker keeps what this edge has not heard yet; empty: `hanse-edge-` and the site's name."""


class NeighbourSettings(Section):
    """What is derived from the events: what goes with what, what is rising, what sells where and when."""

    half_life_days: PositiveFloat = 60.0
    """After so many days a purchase or a view counts half for what goes with what; a change makes the books anew."""
    trend_half_life_hours: PositiveFloat = 24.0
    """After so many hours it counts half for what is wanted lately; a change makes the books anew."""


class SearchSettings(Section):
    """How this shop's items are searched."""

    language: Language = "english"
    """Whose endings are cut off, so that `shelves` is found by `shelf`; `none`: nobody's."""


class StorefrontSettings(Section):
    """The page for people to look at what the edge answers. Who sees it may be any user: this machine alone does."""

    enabled: bool = False
    """Serve it beside the query service; `/` there leads to it. Needs `pip install 'hanse[storefront]'`."""
    port: Port = 8081
    """Port to listen on, always at the loopback address."""


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
    storefront: StorefrontSettings = StorefrontSettings()
    search: SearchSettings = SearchSettings()
    tills: TillSettings = TillSettings()
    neighbours: NeighbourSettings = NeighbourSettings()

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
