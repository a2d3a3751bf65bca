"""Quantise and mask against Flower's functions, and mask expansion against OpenSSL's own figure."""

import os
import shutil
import subprocess
from statistics import median
from typing import Any

import numpy as np

from protocol.fixed_point import Segment, encode
from protocol.masking import CHUNK_WORDS, SEED_BYTES, Keystream, Sign, apply_mask, apply_masks
from simulation.bench import flower
from simulation.bench.timing import in_turns

_OPENSSL_BYTES = 1 << 20


def against_flower(*, parameters: int, peers: int, repetitions: int) -> dict[str, Any]:
    """One edge's work on its vector: stochastic rounding, its own mask, and one mask for each peer.

    Returns:
        processor seconds of both sides, and how many times faster ours is.
    """
    values = np.random.default_rng(0).uniform(-0.5, 0.5, parameters).astype(np.float32)
    layout = (Segment(name="update", length=parameters, bound=1.0),)
    own, rounding, *shared = (os.urandom(SEED_BYTES) for _ in range(peers + 2))
    before, behind = shared[: peers // 2], shared[peers // 2 :]
    masks = [(own, Sign.ADD), *((seed, Sign.SUBTRACT) for seed in before), *((seed, Sign.ADD) for seed in behind)]

    def ours() -> None:
        words = encode({"update": values}, layout=layout, edges=peers + 1, seed=rounding)
        apply_masks(words, masks)

    def flowers() -> None:
        flower.quantize_and_mask(values, own=own, before=before, behind=behind)

    seconds = in_turns({"hanse": ours, "flower": flowers}, repetitions=repetitions)
    return {
        "parameters": parameters,
        "peers": peers,
        "hanse_seconds": seconds["hanse"],
        "flower_seconds": seconds["flower"],
        "ratio": seconds["flower"] / seconds["hanse"],
    }


def expansion(*, words: int, repetitions: int) -> dict[str, Any]:
    """One mask's keystream, made chunk by chunk as in a round; in GB/s of 4-byte words.

    Returns:
        also the same with the mask added to a vector, Flower's generator, and `openssl speed` where it is installed.
    """
    seed = os.urandom(SEED_BYTES)
    vector, chunk = np.zeros(words, dtype=np.uint32), bytearray(4 * CHUNK_WORDS)

    def ours() -> None:
        stream = Keystream(seed)
        for start in range(0, words, CHUNK_WORDS):
            stream.read_into(memoryview(chunk)[: 4 * min(CHUNK_WORDS, words - start)])

    openssl: list[float] = []

    def openssl_speed() -> None:
        openssl.extend(openssl_gb_per_s())

    seconds = in_turns(
        {
            "hanse": ours,
            "added": lambda: apply_mask(vector, seed, Sign.ADD),
            "flower": lambda: flower.expand(seed, words),
            "openssl": openssl_speed,
        },
        repetitions=repetitions,
    )
    gb_per_s = {name: 4e-9 * words / taken for name, taken in seconds.items() if name != "openssl"}
    reference = median(openssl) if openssl else None
    return {
        "words": words,
        "gb_per_s": gb_per_s["hanse"],
        "added_gb_per_s": gb_per_s["added"],
        "flower_gb_per_s": gb_per_s["flower"],
        "openssl_gb_per_s": reference,
        "ratio_vs_openssl": gb_per_s["hanse"] / reference if reference else None,
    }


def openssl_gb_per_s() -> list[float]:
    """What `openssl speed` says of AES-256-CTR on blocks of 1 MiB: one figure, or none where it is not installed."""
    program = shutil.which("openssl")
    if program is None:
        return []
    command = [program, "speed", "-mr", "-evp", "aes-256-ctr", "-bytes", str(_OPENSSL_BYTES), "-seconds", "1"]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    figures = [line for line in told.splitlines() if line.startswith("+F:")]
    return [float(figures[0].rsplit(":", 1)[1]) / 1e9] if figures else []
