"""`hanse-edge learn`: the process of low priority that answers rounds. Torch and Flower live here and nowhere else."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
import torch
from numpy.typing import NDArray

from edge import training, tuning
from edge.catalogue import Catalogue
from edge.children import end_with_parent
from edge.flower_node import FlowerNode, build_client_app
from edge.keys import Keys, load_public
from edge.ledger import Ledger
from edge.membership import Membership
from edge.participation import Participation, Values
from edge.settings import EdgeSettings, TrainingSettings
from edge.store import Store
from protocol import lessons
from protocol.errors import MalformedMessageError, PeerMisbehavedError, UnavailableError
from protocol.fixed_point import Layout
from protocol.identity import edge_id, federation_id
from protocol.messages import Announcement, Purpose
from protocol.models import content
from protocol.models import weights as model_weights

_log = structlog.get_logger(__name__)
_MOST_EPOCHS = 50
_MOST_SAMPLES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Books:
    """What a round learns from, read once a process from this site's store.

    Attributes:
        version: of the shared catalogue that rows refer to.
        items: its length n.
        rows: int64[events], the row of each positive event; 0 where the catalogue does not list the item.
        tokens: int32[n + 1, t].
    """

    version: int
    items: int
    rows: NDArray[np.int64]
    sequences: training.Sequences
    tokens: NDArray[np.int32]

    @classmethod
    def read(cls, directory: Path, settings: EdgeSettings) -> "Books":
        """Read store and catalogue.

        Raises:
            UnavailableError: the shared catalogue has not arrived yet.
        """
        installed = tuning.open_installer(directory, settings).catalogue()
        if installed is None:
            raise UnavailableError("the shared catalogue has not arrived yet", advice="the next round may find it")
        catalogue = Catalogue.load(installed.directory)
        with Store.open(directory / "store.db", durability=settings.store.durability) as store:
            behaviour, names = store.behaviour(), store.item_names()
        row_by_key = np.zeros(max(names, default=0) + 1, dtype=np.int64)
        for key, name in names.items():
            row_by_key[key] = catalogue.row_of.get(name, 0)
        rows = row_by_key[behaviour.item]
        return cls(
            version=installed.offer.version,
            items=len(catalogue),
            rows=rows,
            sequences=training.Sequences.of(user=behaviour.user, rows=rows, time_ms=behaviour.time_ms),
            tokens=content.token_table(
                zip(catalogue.titles[1:], catalogue.brands[1:], catalogue.categories[1:], strict=True)
            ),
        )

    def check(self, announcement: Announcement) -> None:
        """Refuse a round on another catalogue: its rows would be other items."""
        asked = announcement.training.get("catalogue_version")
        if asked != self.version:
            raise PeerMisbehavedError(f"round on catalogue {asked}, this edge has {self.version}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PopularityLesson:
    """How often each item was had at this site."""

    books: Books

    def layout(self, announcement: Announcement, weights: bytes) -> Layout:
        self.books.check(announcement)
        if weights:
            raise PeerMisbehavedError("a popularity round has no weights")
        return lessons.popularity_layout(self.books.items)

    def values(self, announcement: Announcement, weights: bytes) -> Values:
        del announcement, weights
        counts = training.item_counts(self.books.rows, items=self.books.items)
        return {"counts": np.minimum(counts, lessons.COUNT_BOUND), "weight": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingLesson:
    """What this site learns from its own sessions in one round."""

    books: Books
    limits: TrainingSettings

    def layout(self, announcement: Announcement, weights: bytes) -> Layout:
        self.books.check(announcement)
        loaded = model_weights.load(weights)
        if loaded.config.items != self.books.items:
            raise PeerMisbehavedError(f"weights of {loaded.config.items} items, the catalogue has {self.books.items}")
        return lessons.training_layout(model_weights.flatten(loaded.tensors).size, clip=announcement.clip)

    def values(self, announcement: Announcement, weights: bytes) -> Values:
        update = training.train(
            model_weights.load(weights),
            self.books.tokens,
            self.books.sequences,
            lesson=self._lesson(announcement),
            seed=announcement.round,
        )
        share = min(update.examples, announcement.weight_cap) / announcement.weight_cap
        norm = float(np.linalg.norm(update.delta.astype(np.float64)))
        shrink = min(1.0, announcement.clip / norm) if norm else 1.0
        _log.info("trained", round=announcement.round, examples=update.examples, clipped=shrink < 1)
        return {
            "update": np.clip(update.delta * np.float32(share * shrink), -announcement.clip, announcement.clip),
            "weight": share,
            "loss": share * min(update.loss, lessons.LOSS_BOUND),
            "ndcg": share * update.ndcg,
            "recall": share * update.recall,
        }

    def _lesson(self, announcement: Announcement) -> training.Lesson:
        """The announced numbers, within what this machine can bear."""
        asked = announcement.training
        try:
            return training.Lesson(
                epochs=_within(asked["epochs"], _MOST_EPOCHS),
                batch_size=_within(asked["batch_size"], _MOST_SAMPLES),
                learning_rate=min(max(asked["learning_rate"], 0.0), 1.0),
                negatives=_within(asked["negatives"], _MOST_SAMPLES),
                max_seconds=60 * self.limits.max_minutes,
            )
        except KeyError as error:
            raise MalformedMessageError(f"the announcement does not say {error}") from error


def _within(asked: float, most: int) -> int:
    return int(min(max(asked, 1.0), float(most)))


def learn(directory: Path, settings: EdgeSettings) -> None:
    """Take part in rounds until there was none for a while, or the edge ends.

    Raises:
        UnavailableError: the shared catalogue has not arrived yet.
        NotAdmittedError: the center keeps turning this edge away.
    """
    end_with_parent()
    torch.set_num_threads(settings.training.threads)
    books = Books.read(directory, settings)
    keys = Keys.load(directory / "keys")
    membership = Membership(directory, federation=federation_id(settings.site.federation))
    participation = Participation(
        me=edge_id(settings.site.name),
        keys=keys,
        center=load_public(directory / "trust" / "center.pub"),
        roster=membership.roster,
        policy=settings.policy,
        ledger=Ledger(directory / "state.db"),
        lessons={
            Purpose.POPULARITY.value: PopularityLesson(books=books),
            Purpose.TRAIN.value: TrainingLesson(books=books, limits=settings.training),
        },
        now_ms=lambda: time.time_ns() // 1_000_000,
    )
    node = FlowerNode(
        gateway_url=settings.center.gateway,
        ca_certificate=directory / "trust" / "ca.crt",
        node_key=keys.node,
        app=build_client_app(participation.answer),
        memory=directory / "node.json",
    )
    _log.info("learner ready", users=len(books.sequences), events=len(books.rows))
    node.run(threading.Event(), idle=settings.training.idle_seconds)
