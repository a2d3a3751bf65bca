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
    """

    completed: int
    model: Weights
    velocity: NDArray[np.float32]

    @classmethod
    def begin(cls, weights: bytes) -> Self:
        """The state before the first round.

        Raises:
            MalformedMessageError: these are no weights.
        """
        model = model_weights.load(weights)
        return cls(completed=0, model=model, velocity=np.zeros_like(flatten(model.tensors)))

    def weights(self) -> bytes:
        """The weights as they travel."""
        return self.model.to_bytes()

    def to_bytes(self) -> bytes:
        model = self.weights()
        optimizer = save_tensors({"velocity": self.velocity, "completed": np.array([self.completed], np.int64)})
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
            velocity, completed = optimizer["velocity"], int(optimizer["completed"][0])
        except (struct.error, SafetensorError, KeyError, IndexError, ValueError) as error:
            raise MalformedMessageError(f"not a campaign's checkpoint: {error}") from error
        if velocity.shape != flatten(model.tensors).shape:
            raise MalformedMessageError("this checkpoint's optimizer belongs to another model")
        return cls(completed=completed, model=model, velocity=velocity)


def apply_round(
    state: ServerState, *, update_sum: NDArray[np.float64], weight_sum: float, settings: ServerOptimizer
) -> ServerState:
    """Take one step along the average update.

    Args:
        update_sum: float64[d], sum over the cohort of weight times update.
        weight_sum: sum of the weights, each at most 1.

    Raises:
        ValueError: nobody had any examples, or the sum has another length.
    """
    if weight_sum <= 0:
        raise ValueError("no edge had anything to learn from")
    if update_sum.shape != state.velocity.shape:
        raise ValueError(f"{update_sum.shape} values for {state.velocity.shape} parameters")
    average = update_sum / weight_sum
    velocity = (settings.momentum * state.velocity + average).astype(np.float32)
    values = flatten(state.model.tensors) + np.float32(settings.learning_rate) * velocity
    return replace(state, completed=state.completed + 1, model=state.model.moved(values), velocity=velocity)
