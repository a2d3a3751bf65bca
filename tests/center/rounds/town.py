"""A center's folder and four edges in one process: real state machines, real grid and ledgers, no network.

Loaded by path: the test folders are no packages.
"""

import itertools
from dataclasses import replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from center.registry import Registry
from center.rounds.campaign import Folder, Surroundings, run_campaign
from center.rounds.federation import Federation
from center.rounds.transport import GridTransport
from center.settings import CenterSettings, RoundSettings
from center.settings import PrivacySettings as PrivacyOfRounds
from edge.keys import Keys
from edge.rounds.flower_node import build_client_app
from edge.rounds.ledger import Ledger
from edge.rounds.participation import Participation
from edge.rounds.ratchet import Ratchet
from edge.rounds.spending import Spending
from edge.settings import PolicySettings, PrivacySettings
from protocol import lessons
from protocol.errors import PeerMisbehavedError, UnavailableError
from protocol.identity import EdgeId, FederationId, Roster
from protocol.models import weights as model_weights
from protocol.privacy import FIGURES
from protocol.transport import Action
from simulation.network import InProcessGrid, Site

CENTER = Ed25519PrivateKey.from_private_bytes(b"c" * 32)
NAMES = tuple(EdgeId(name) for name in ("bergen", "bruges", "riga", "visby"))
ITEMS = 3
SHAPE = model_weights.SequenceConfig(items=ITEMS, embedding_size=2, history_length=2, layers=1, heads=1)
ROUNDS = RoundSettings(deadline_seconds=1000, gather_seconds=5, step_seconds=20, min_cohort=3, clip=100.0)
NO_NOISE = PrivacyOfRounds()
POLICY = PolicySettings(min_cohort=3, max_colluders=0)


class KilledError(BaseException):
    """The process ends here: nothing catches it, nothing is tidied up."""


class Shop:
    """What one site says: every item bought once, and a step of one in each parameter."""

    def __init__(self):
        self.away = False
        self.refusal = None
        self.weight = 1.0
        self.events = 1
        self.ndcg = 0.5
        self.step = 1.0
        self.trained_from = []

    def layout(self, announcement, weights):
        if self.refusal:
            raise PeerMisbehavedError(self.refusal)
        clip, bits = announcement.coordinate_clip, announcement.layout[0].bits
        bound = announcement.layout[0].bound if announcement.privacy else None
        if weights:
            parameters = model_weights.parameters(weights)
            return lessons.training_layout(parameters, coordinate_clip=clip, word_bits=bits, private_bound=bound)
        return lessons.popularity_layout(ITEMS, private_bound=bound)

    def until(self):
        return self.events

    def values(self, announcement, weights, *, after):
        said = self._plain_values(weights, after=after)
        if announcement.privacy:  # one user, within the user clip
            said |= {name: value * announcement.privacy.unit(name) for name, value in said.items() if name in FIGURES}
            said |= {name: np.zeros_like(said[name]) for name in ("counts", "update") if name in said}
        return said

    def _plain_values(self, weights, *, after):
        if not weights:
            return {"counts": np.full(ITEMS + 1, self.events - after, np.float32), "weight": 1.0}
        self.trained_from.append(weights)
        step = np.full(model_weights.parameters(weights), self.step * self.weight, np.float32)
        share = {name: self.weight * value for name, value in (("loss", 2.0), ("ndcg", self.ndcg), ("recall", 0.25))}
        return {"update": step, "weight": self.weight, **share}


class Town:
    """A center's folder and four edges; `center()` is a new process on the same disk."""

    def __init__(self, folder, names=NAMES):
        self.folder, self.names = folder, names
        self.clock = itertools.count(1_700_000_000_000, 100)
        self.keys = {name: Keys.generate() for name in self.names}
        self.shops = {name: Shop() for name in self.names}
        self.lessons = {name: dict.fromkeys(("popularity", "train"), self.shops[name]) for name in self.names}
        self.policies = dict.fromkeys(self.names, POLICY)
        self.center_roster = self.edge_roster = self.roster_of(1, self.names)
        self.budgets = dict.fromkeys(self.names, PrivacySettings())
        self.wakes = []
        self.running = "spring"
        self.stopped = False
        self.ledgers = {name: Ledger(folder / name / "state.db") for name in self.names if not (folder / name).mkdir()}
        self.registry = Registry(folder / "registry.db")
        self.registry.ask_campaign("spring", submodel="recommend", rounds=3, now_ms=1)
        self.transport = self._transport()

    def roster_of(self, version, names, **options):
        members = [self.keys[name].member(name) for name in names]
        return Roster.of(FederationId("hanse"), version, members, **options)

    def _participation(self, name):
        return Participation(
            me=name,
            keys=self.keys[name],
            center=CENTER.public_key(),
            roster=lambda: self.edge_roster,
            policy=self.policies[name],
            ledger=self.ledgers[name],
            ratchet=Ratchet(self.folder / name / "ratchet"),
            spending=Spending(self.folder / name / "spending.db", self.budgets[name], rounds_per_day=200),
            lessons=self.lessons[name],
            now_ms=lambda: 1_700_000_000_000,
        )

    def _answer(self, name, request):
        return self._participation(name).answer(request)

    def _transport(self):
        sites = {}
        for name in self.names:
            der = self.keys[name].node.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            app = build_client_app(lambda request, name=name: self._answer(name, request))
            sites[name] = Site(key=der, app=app)
        return Line(GridTransport(InProcessGrid(sites), edges={n: s.key for n, s in sites.items()}, poll=0), self)

    def federation(self):
        """What one process of the center asks with."""
        return Federation(
            roster=lambda: self.center_roster,
            center_epoch=1,
            center_key=CENTER,
            transport=self.transport,
            registry=self.registry,
            wake=lambda campaign, until_ms: self.wakes.append((campaign, until_ms)),
            stopped=lambda: self.stopped,
            now_ms=lambda: next(self.clock),
        )

    def center(self, **changes):
        around = Surroundings(
            federation=replace(self.federation(), **{name: changes.pop(name) for name in ("wake",) if name in changes}),
            catalogue_version=1,
            items=ITEMS,
            counted=lambda: np.zeros(ITEMS + 1),
            initial=lambda counts: model_weights.initial(
                SHAPE, popularity=counts, min_support=1, rng=np.random.default_rng(7)
            ).to_bytes(),
        )
        return replace(around, **changes)

    def run(self, *, rounds=ROUNDS, campaign="spring", privacy=NO_NOISE, **changes):
        self.running = campaign
        run_campaign(
            self.registry.campaign(campaign),
            folder=self.campaign,
            around=self.center(**changes),
            settings=CenterSettings(federation="hanse", rounds=rounds, privacy=privacy),
        )

    @property
    def campaign(self):
        return Folder(path=self.folder / "campaigns" / self.running)

    def rounds(self):
        return self.registry.rounds("spring")

    def steps(self):
        return [row.figures["step"] for row in self.rounds() if "step" in row.figures]

    def close(self):
        self.registry.close()
        for ledger in self.ledgers.values():
            ledger.close()


class Line:
    """The line to the edges: those that are away are not seen online, and it swallows what it is told to.

    Attributes:
        swallows: pairs of an edge and an action whose requests are lost; None for all actions.
        slow: edges whose masked update arrives only when the others have been asked to sign.
    """

    def __init__(self, transport, town):
        self.transport, self.town = transport, town
        self.swallows = set()
        self.outages = 0
        self.before_send = lambda _requests: None
        self.sent = []
        self.slow = set()
        self.held = []

    def online(self):
        return frozenset(name for name in self.transport.online() if not self.town.shops[name].away)

    def send(self, requests):
        self.before_send(requests)
        self.sent += [(edge, request.action) for edge, request in requests.items()]
        self.transport.send({edge: ask for edge, ask in requests.items() if not self._lost(edge, ask.action)})

    def _lost(self, edge, action):
        return (edge, action) in self.swallows or (edge, None) in self.swallows

    def receive(self, *, timeout):
        if self.outages and self.sent[-1][1] == Action.MASKED_UPDATE:
            self.outages -= 1
            raise UnavailableError("SuperLink does not answer")
        del timeout
        replies = self.held + self.transport.receive(timeout=0)
        late = self.sent[-1][1] == Action.MASKED_UPDATE
        self.held = [(edge, reply) for edge, reply in replies if late and edge in self.slow]
        return [(edge, reply) for edge, reply in replies if not (late and edge in self.slow)]

    def forget(self):
        self.transport.forget()
