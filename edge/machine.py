"""What this process has of its machine's memory, read from the kernel; and what Python need not look at again."""

import ctypes
import gc
import resource
from contextlib import suppress
from pathlib import Path

_ARENA_MAX = -8  # of mallopt(3)
_GROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def machine_bytes() -> int:
    """What the machine has, or what the container may use of it."""
    machine = 0
    for line in Path("/proc/meminfo").read_text("ascii").splitlines():
        if line.startswith("MemTotal:"):
            machine = 1024 * int(line.split()[1])
    for path in _GROUPS:
        with suppress(OSError, ValueError):  # "max": no limit
            machine = min(machine, int(path.read_text("ascii")))
    return machine


def resident_bytes() -> int:
    """What this process has in real memory."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()


def give_back() -> None:
    """Give pages that nothing lies on back to the system; glibc keeps them otherwise."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def share_one_heap() -> None:
    """Called before there are threads: glibc would give each its own heap, and what is free in one serves no other."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_ARENA_MAX, 1)


def set_aside() -> None:
    """What has been loaded by now stays: the collector of cycles never looks at it again.

    Else it would every now and then look at all of it, which is some 70 ms in which nobody is answered.
    """
    gc.freeze()
    gc.enable()
