"""``python -m simulation.bench.node``: one edge of the round that is timed, in a process of its own and without torch.

It answers rounds with the edge's production code and books on disk. Its local training is a sleep: only the duration
matters here, and both sides sleep equally long. Asked for a plain average it answers with its update as float32.
"""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.keys import Keys, load_public
from edge.rounds.flower_node import FlowerNode, build_client_app
from edge.rounds.ledger import Ledger
from edge.rounds.participation import Participation
from edge.rounds.ratchet import Ratchet
from edge.rounds.spending import Spending
from edge.settings import PolicySettings, PrivacySettings
from protocol import lessons
from protocol.announcement import Announcement, Purpose
from protocol.fixed_point import Layout
from protocol.identity import EdgeId, FederationId, Roster
from protocol.masked_update import Values
from protocol.transport import Reply, Request

FEDERATION = FederationId("bench")
PLAIN = b"plain average "
"""How a request for an unprotected update begins."""
ROLL_CALL = "roll-call"
KEYS, CENTER, ROSTER_KEY, ROSTER, AUTHORITY = "keys", "center.pub", "roster.pub", "roster", "ca.crt"
_FLOAT_BYTES = 4
_LARGEST = 0.01  # as real coordinates are, and within what a round lets pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """What one node is told.

    Attributes:
        directory: its name is the site's.
        dies: the node ends by SIGKILL as soon as it is to train: it has taken the message and says nothing.
    """

    directory: str
    gateway: str
    training_seconds: float
    dies: bool


def update_of(edge: EdgeId, parameters: int) -> NDArray[np.float32]:
    """What this site has learnt, float32[parameters]."""
    rng = np.random.default_rng(list(edge.encode()))
    return rng.uniform(-_LARGEST, _LARGEST, parameters).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Takes its time, and knows the result beforehand."""

    me: EdgeId
    duty: Duty

    def layout(self, announcement: Announcement, weights: bytes) -> Layout:
        return lessons.training_layout(
            len(weights) // _FLOAT_BYTES,
            coordinate_clip=announcement.coordinate_clip,
            word_bits=announcement.layout[0].bits,
        )

    def until(self) -> int:
        return 0

    def values(self, announcement: Announcement, weights: bytes, *, after: int) -> Values:
        del announcement, after
        return {"update": self.learn(weights), "weight": 1.0, "loss": 1.0, "ndcg": 0.1, "recall": 0.1}

    def learn(self, weights: bytes) -> NDArray[np.float32]:
        if self.duty.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.duty.training_seconds)
        return update_of(self.me, len(weights) // _FLOAT_BYTES)


def run(duty: Duty) -> None:
    """Answer until ended."""
    directory = Path(duty.directory)
    me, keys, policy = EdgeId(directory.name), Keys.load(directory / KEYS), PolicySettings()
    roster = Roster.open(
        (directory / ROSTER).read_bytes(), key=load_public(directory / ROSTER_KEY), federation=FEDERATION
    )
    training = Training(me=me, duty=duty)
    participation = Participation(
        me=me,
        keys=keys,
        center=load_public(directory / CENTER),
        roster=lambda: roster,
        policy=policy,
        ledger=Ledger(directory / "state.db"),
        ratchet=Ratchet(directory / "ratchet"),
        spending=Spending(directory / "spending.db", PrivacySettings(), rounds_per_day=policy.rounds_per_day),
        lessons={Purpose.TRAIN.value: training},
        now_ms=lambda: time.time_ns() // 1_000_000,
    )

    def answer(request: Request) -> Reply:
        if request.action == ROLL_CALL:
            return Reply(body=b"here")
        if request.document.startswith(PLAIN):
            return Reply(body=training.learn(request.weights).tobytes())
        return participation.answer(request)

    node = FlowerNode(
        gateway_url=duty.gateway,
        ca_certificate=directory / AUTHORITY,
        node_key=keys.node,
        app=build_client_app(answer),
        memory=directory / "node.json",
    )
    node.run(threading.Event())


if __name__ == "__main__":
    run(Duty(**json.loads(sys.argv[1])))
