"""Flower's own secure aggregation, called in the order of its client mod: what ours is compared with.

Source: ``flwr.client.mod.secure_aggregation.secaggplus_mod``, stage ``_collect_masked_vectors``, of flwr 1.41. Left out
is what ours does elsewhere, too: key agreement, weighting by examples, serialization.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.quantization import quantize
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from numpy.typing import NDArray

__all__ = ["combine_shares", "create_shares", "expand", "quantize_and_mask"]

# The defaults of Flower's SecAggPlusWorkflow.
_CLIPPING_RANGE = 8.0
_QUANTIZATION_RANGE = 1 << 22
_MODULUS = 1 << 32


def quantize_and_mask(
    values: NDArray[Any], *, own: bytes, before: Sequence[bytes], behind: Sequence[bytes]
) -> NDArray[np.int64]:
    """One client's masked vector.

    Args:
        values: float32[d].
        own: 32 bytes, seed of its own mask.
        before: seeds shared with peers of lower number; their masks are added.
        behind: seeds shared with peers of higher number; their masks are taken away.
    """
    quantized = quantize([values], _CLIPPING_RANGE, _QUANTIZATION_RANGE)
    shapes = [array.shape for array in quantized]
    quantized = parameters_addition(quantized, pseudo_rand_gen(own, _MODULUS, shapes))
    for seed in before:
        quantized = parameters_addition(quantized, pseudo_rand_gen(seed, _MODULUS, shapes))
    for seed in behind:
        quantized = parameters_subtraction(quantized, pseudo_rand_gen(seed, _MODULUS, shapes))
    masked: NDArray[Any] = parameters_mod(quantized, _MODULUS)[0]
    return masked


def expand(seed: bytes, words: int) -> NDArray[np.int64]:
    """One mask."""
    mask: NDArray[np.int64] = pseudo_rand_gen(seed, _MODULUS, [(words,)])[0]
    return mask
