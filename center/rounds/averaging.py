"""Summed update -> next weights. Pure: `apply_round(state, ...) -> state`, as in FedJAX.

Sources: McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, AISTATS 2017
(averaging); Hsu et al., arXiv:1909.06335 (momentum at the server).
"""

import struct
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from protocol.errors import MalformedMessageError
from protocol.models import weights as model_weights
from protocol.models.weights import Weights, flatten


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptimizer:
    """The center's own step.

    Attributes:
        learning_rate: on the averaged update; 1 is plain averaging.
        momentum: share of the last step that is kept, from 0 to below 1.
    """

    learning_rate: float = 1.0
    momentum: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ServerState:
    """All that a campaign must not forget between two rounds.

    Attributes:
        completed: training rounds applied.
        model: the weights.
        velocity: float32[d], the last step; zeros before the first.
        previous: float32[d], the weights before that step.
        validation: NDCG of the previous weights, as the sites' hold-outs said it; 0 before the first step.
        halvings: how often the last step has been halved since.
    """

    completed: int
    model: Weights
    velocity: NDArray[np.float32]
    previous: NDArray[np.float32]
    validation: float = 0.0
    halvings: int = 0

    @classmethod
    def begin(cls, weights: bytes) -> Self:
        """The state before the first round.

        Raises:
            MalformedMessageError: these are no weights.
        """
        model = model_weights.load(weights)
        values = flatten(model.tensors)
        return cls(completed=0, model=model, velocity=np.zeros_like(values), previous=values)

    def weights(self) -> bytes:
        """The weights as they travel."""
        return self.model.to_bytes()

    def to_bytes(self) -> bytes:
        model = self.weights()
        optimizer = save_tensors(
            {
                "velocity": self.velocity,
                "previous": self.previous,
                "counts": np.array([self.completed, self.halvings], np.int64),
                "validation": np.array([self.validation]),
            }
        )
        return struct.pack("<Q", len(model)) + model + optimizer

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a checkpoint back.

        Raises:
            MalformedMessageError: not a checkpoint.
        """
        try:
            (length,) = struct.unpack_from("<Q", data)
            model = model_weights.load(data[8 : 8 + length])
            optimizer: dict[str, NDArray[Any]] = load_tensors(data[8 + length :])
            velocity, previous = optimizer["velocity"], optimizer["previous"]
            completed, halvings = (int(count) for count in optimizer["counts"])
            validation = float(optimizer["validation"][0])
        except (struct.error, SafetensorError, KeyError, IndexError, ValueError) as error:
            raise MalformedMessageError(f"not a campaign's checkpoint: {error}") from error
        if not velocity.shape == previous.shape == flatten(model.tensors).shape:
            raise MalformedMessageError("this checkpoint's optimizer belongs to another model")
        return cls(
            completed=completed,
            model=model,
            velocity=velocity,
            previous=previous,
            validation=validation,
            halvings=halvings,
        )


def apply_round(
    state: ServerState, *, average: NDArray[np.float64], validation: float, settings: ServerOptimizer
) -> ServerState:
    """Take one step along the average update.

    Args:
        average: float64[d], mean over the sites of what local training changed.
        validation: NDCG of the weights that this step starts from.

    Raises:
        ValueError: the average has another length.
    """
    if average.shape != state.velocity.shape:
        raise ValueError(f"{average.shape} values for {state.velocity.shape} parameters")
    velocity = (settings.momentum * state.velocity + average).astype(np.float32)
    before = flatten(state.model.tensors)
    values = before + np.float32(settings.learning_rate) * velocity
    return replace(
        state,
        completed=state.completed + 1,
        model=state.model.moved(values),
        velocity=velocity,
        previous=before,
        validation=validation,
        halvings=0,
    )


def take_back(state: ServerState) -> ServerState:
    """Go back half of the last step, so that what comes next is another question than before; forget its momentum.

    A line search by halves: a step that was too long shortens, one that was poisoned all but vanishes.
    """
    values = flatten(state.model.tensors)
    half = state.previous + np.float32(0.5) * (values - state.previous)
    return replace(
        state, model=state.model.moved(half), velocity=np.zeros_like(state.velocity), halvings=state.halvings + 1
    )
