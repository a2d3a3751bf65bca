"""Files that survive kill -9 and a power cut: whole and new, or whole and old."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write(path: Path, data: bytes, *, private: bool = False) -> None:
    """Replace a file atomically: written aside, flushed to disk, renamed, the folder flushed.

    Args:
        private: readable by the owner alone (keys).

    Raises:
        OSError: the disk is full or not writable; the old file is intact.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(aside, "wb", opener=lambda name, flags: os.open(name, flags, 0o600 if private else 0o644)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    flush_directory(path.parent)


def write_array(path: Path, values: NDArray[Any]) -> None:
    """Store an array as .npy, atomically."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    write(path, buffer.getvalue())


def flush_directory(directory: Path) -> None:
    """Make names in a folder durable."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
