"""How long a submodel will take, and who stops it when it takes longer than the answer is of use."""

import threading
import time
from collections.abc import Callable
from math import inf
from typing import Final

import onnxruntime as ort

_WEIGHT_OF_NEW: Final = 0.1
_DOUBT: Final = 0.9


class Pace:
    """Seconds per unit of work: an average in which the newest tenth counts a tenth."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def expects(self, work: float) -> float:
        """Seconds; 0 before the first note."""
        return self._seconds * work

    def note(self, seconds: float, *, work: float) -> None:
        """So long it took."""
        if self._seconds:
            self._seconds += _WEIGHT_OF_NEW * (seconds / work - self._seconds)
        else:
            self._seconds = seconds / work

    def doubt(self) -> None:
        """It was left out because it would have taken too long: what was slow once is tried again in the end."""
        self._seconds *= _DOUBT


class Watchdog:
    """One thread that stops a run of ONNX Runtime when its time is over.

    It sleeps until the run that it saw last has to be over, whatever comes meanwhile, so that it disturbs nobody: a
    run that must end sooner wakes it. A run is stopped between two operators of the graph: within one, however long,
    nothing can stop it.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._run: tuple[float, ort.RunOptions] | None = None
        self._wake = threading.Event()
        self._wakes_at = inf
        self._closed = False
        self._thread: threading.Thread | None = None

    def watch(self, until: float) -> ort.RunOptions:
        """Options for one run, which is stopped at this time of the clock."""
        options = ort.RunOptions()
        self._run = until, options
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="watchdog", daemon=True)
            self._thread.start()
        elif until < self._wakes_at:
            self._wake.set()
        return options

    def rest(self) -> None:
        """The run is over."""
        self._run = None

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        while not self._closed:
            self._wake.clear()
            run, now = self._run, self._clock()
            if run is not None and now >= run[0]:
                run[1].terminate = True
            self._wakes_at = inf if run is None or run[1].terminate else run[0]
            if self._run is run and not self._closed:  # whoever comes from here on sees when this thread wakes
                self._wake.wait(None if self._wakes_at == inf else max(self._wakes_at - now, 0.0))
