"""What this site says in each kind of round, from its own books (SPEC 4.3-4.5)."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import structlog

from edge import durable
from edge.rounds import training
from edge.rounds.books import Books
from edge.rounds.private_training import PrivateLesson, popularity_privately, train_privately
from edge.settings import TrainingSettings
from protocol import lessons
from protocol.announcement import Announcement
from protocol.errors import MalformedMessageError, PeerMisbehavedError, RefusedByPolicyError
from protocol.fixed_point import Layout
from protocol.masked_update import Values
from protocol.models import weights as model_weights
from protocol.models.weights import Weights
from protocol.privacy import Privacy

_log = structlog.get_logger(__name__)
_MOST_EPOCHS = 50
_MOST_SAMPLES = 65_536

ReadBooks = Callable[[], Books]
"""Reads them at the first call: a learner that only opens a sum needs none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PopularityLesson:
    """How often each item was had at this site since it was last asked: an event is counted once, ever."""

    books: ReadBooks

    def layout(self, announcement: Announcement, weights: bytes) -> Layout:
        books = self.books()
        books.check(announcement)
        if weights:
            raise PeerMisbehavedError("a popularity round has no weights")
        return lessons.popularity_layout(books.items, private_bound=private_bound(announcement))

    def until(self) -> int:
        return self.books().until

    def values(self, announcement: Announcement, weights: bytes, *, after: int) -> Values:
        del weights
        books = self.books()
        fresh = books.events > after
        if announcement.privacy is not None:
            return popularity_privately(
                books.users[fresh],
                books.rows[fresh],
                items=books.items,
                privacy=announcement.privacy,
                bound=announcement.layout[0].bound,
            )
        counts = training.item_counts(books.rows[fresh], items=books.items)
        return {"counts": np.minimum(counts, lessons.COUNT_BOUND), "weight": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class LastWeights:
    """The weights of the newest training round, on disk: a center must not lead them far astray in one step.

    Attributes:
        path: a file in the edge's folder.
        max_move: L2 norm, from `policy.max_move`.
    """

    path: Path
    max_move: float

    def check(self, campaign: str, weights: Weights) -> None:
        """Have the weights moved no further than they may since the last round of this campaign (SPEC 7.2)?

        Raises:
            RefusedByPolicyError: they have.
        """
        known = self._read(campaign)
        if known is None:
            return
        before, after = (model_weights.flatten(one.tensors) for one in (model_weights.load(known), weights))
        if before.shape != after.shape:
            raise PeerMisbehavedError(f"the model of campaign {campaign} has changed its shape")
        move = float(np.linalg.norm(after.astype(np.float64) - before))
        if move > self.max_move:
            raise RefusedByPolicyError(
                f"this site's policy refuses weights that have moved by {move:g}: it allows {self.max_move:g}",
                advice="policy.max_move in edge.toml",
            )

    def keep(self, campaign: str, weights: bytes) -> None:
        durable.write(self.path, _name(campaign) + weights)

    def _read(self, campaign: str) -> bytes | None:
        if not self.path.exists():
            return None
        data, name = self.path.read_bytes(), _name(campaign)
        return data[len(name) :] if data.startswith(name) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingLesson:
    """What this site learns from its own sessions in one round.

    Attributes:
        users_share: of the users that take part in a private round, drawn by chance.
        last: remembers the weights of the last round, to measure how far they have moved.
    """

    books: ReadBooks
    limits: TrainingSettings
    users_share: float
    last: LastWeights

    def layout(self, announcement: Announcement, weights: bytes) -> Layout:
        books = self.books()
        books.check(announcement)
        loaded = model_weights.load(weights)
        if loaded.config.items != books.items:
            raise PeerMisbehavedError(f"weights of {loaded.config.items} items, the catalogue has {books.items}")
        self.last.check(announcement.campaign, loaded)
        return lessons.training_layout(
            model_weights.flatten(loaded.tensors).size,
            coordinate_clip=announcement.coordinate_clip,
            word_bits=announcement.layout[0].bits,
            private_bound=private_bound(announcement),
        )

    def until(self) -> int:
        return self.books().until

    def values(self, announcement: Announcement, weights: bytes, *, after: int) -> Values:
        del after  # an event may teach in many rounds
        self.last.keep(announcement.campaign, weights)
        if announcement.privacy is not None:
            return self._values_privately(announcement, announcement.privacy, weights)
        books = self.books()
        update = training.train(
            model_weights.load(weights),
            books.tokens,
            books.sequences,
            lesson=self._lesson(announcement),
            seed=announcement.round,
            validation_seed=int.from_bytes(sha256(announcement.campaign.encode()).digest()[:4], "little"),
        )
        share = min(update.examples, announcement.weight_cap) / announcement.weight_cap
        norm = float(np.linalg.norm(update.delta.astype(np.float64)))
        shrink = min(1.0, announcement.clip / norm) if norm else 1.0
        bound = announcement.coordinate_clip
        _log.info("trained", round=announcement.round, examples=update.examples, clipped=shrink < 1)
        return {
            "update": np.clip(update.delta * np.float32(share * shrink), -bound, bound),
            "weight": share,
            "loss": share * min(update.loss, lessons.LOSS_BOUND),
            "ndcg": share * update.ndcg,
            "recall": share * update.recall,
        }

    def _values_privately(self, announcement: Announcement, privacy: Privacy, weights: bytes) -> Values:
        lesson = PrivateLesson(
            privacy=privacy,
            bound=announcement.layout[0].bound,
            negatives=self._lesson(announcement).negatives,
            share=self.users_share,
            max_seconds=60 * self.limits.max_minutes,
        )
        books = self.books()
        return train_privately(
            model_weights.load(weights), books.tokens, books.sequences, lesson=lesson, seed=announcement.round
        )

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


def _name(campaign: str) -> bytes:
    """32 bytes, whatever a campaign is called."""
    return sha256(campaign.encode()).digest()


def private_bound(announcement: Announcement) -> float | None:
    """In a round with noise all words share one bound, whichever it is; a tighter one cuts more of what is said."""
    return announcement.layout[0].bound if announcement.privacy is not None else None


def _within(asked: float, most: int) -> int:
    return int(min(max(asked, 1.0), float(most)))
