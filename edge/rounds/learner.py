"""`hanse-edge learn`: the process of low priority that answers rounds. Torch and Flower live here and nowhere else."""

import functools
import threading
import time
from pathlib import Path
from typing import Any

import structlog
import torch

from edge import tuning
from edge.children import end_with_parent
from edge.diary import Diary
from edge.keys import Keys, load_public
from edge.membership import Membership
from edge.records.store import Store
from edge.releases.installed import Installed
from edge.releases.installer import Installer
from edge.releases.trial_record import TrialRecord
from edge.rounds.books import Books
from edge.rounds.figures import EvaluationLesson, HealthLesson, Load
from edge.rounds.flower_node import FlowerNode, build_client_app
from edge.rounds.ledger import Ledger
from edge.rounds.lessons import LastWeights, PopularityLesson, TrainingLesson
from edge.rounds.participation import Participation
from edge.rounds.ratchet import Ratchet
from edge.rounds.spending import Spending
from edge.settings import EdgeSettings
from protocol.announcement import Announcement, Purpose
from protocol.errors import UnavailableError
from protocol.identity import edge_id, federation_id

_log = structlog.get_logger(__name__)


def learn(directory: Path, settings: EdgeSettings) -> None:
    """Take part in rounds until there was none for a while, or the edge ends.

    Raises:
        UnavailableError: the shared catalogue has not arrived yet.
        NotAdmittedError: the center keeps turning this edge away.
    """
    end_with_parent()
    installer = tuning.open_installer(directory, settings)
    if installer.catalogue() is None:
        raise UnavailableError("the shared catalogue has not arrived yet", advice="the next round may find it")
    torch.set_num_threads(settings.training.threads)
    books = functools.cache(lambda: Books.read(directory, settings))
    keys = Keys.load(directory / "keys")
    membership = Membership(directory, federation=federation_id(settings.site.federation))
    diary = Diary(directory)
    participation = Participation(
        me=edge_id(settings.site.name),
        keys=keys,
        center=load_public(directory / "trust" / "center.pub"),
        roster=membership.roster,
        policy=settings.policy,
        ledger=Ledger(directory / "state.db"),
        ratchet=Ratchet(directory / "ratchet"),
        spending=Spending(directory / "spending.db", settings.privacy, rounds_per_day=settings.policy.rounds_per_day),
        lessons={
            Purpose.POPULARITY.value: PopularityLesson(books=books),
            Purpose.TRAIN.value: TrainingLesson(
                books=books,
                limits=settings.training,
                users_share=settings.privacy.users_share,
                last=LastWeights(path=directory / "last-weights", max_move=settings.policy.max_move),
            ),
            Purpose.EVALUATE.value: EvaluationLesson(
                candidate=lambda number: _loading(installer, installer.candidate(), number=number),
                serving=lambda: _loading(installer, installer.bundle()),
                store=lambda: Store.open(directory / "store.db", durability=settings.store.durability),
            ),
            Purpose.HEALTH.value: HealthLesson(record=lambda: TrialRecord.read(directory)),
        },
        now_ms=lambda: time.time_ns() // 1_000_000,
        note=lambda asked: diary.note("round answered", **_facts(asked)),
    )
    node = FlowerNode(
        gateway_url=settings.tied().gateway,
        ca_certificate=directory / "trust" / "ca.crt",
        node_key=keys.node,
        app=build_client_app(participation.answer),
        memory=directory / "node.json",
    )
    _log.info("learner ready")
    node.run(threading.Event(), idle=settings.training.idle_seconds)


def _facts(asked: Announcement) -> dict[str, Any]:
    """What the audit log says of a round that was answered."""
    return {
        "round": asked.round,
        "purpose": asked.purpose.value,
        "campaign": asked.campaign,
        "edges": asked.edges,
        "announcement": asked.digest().hex(),
    }


def _loading(installer: Installer, found: Installed | None, *, number: int | None = None) -> Load | None:
    """How to load what lies there, if it is there and of this number."""
    if found is None or number not in {None, found.offer.version}:
        return None
    return lambda: tuning.load_release(installer, found)
