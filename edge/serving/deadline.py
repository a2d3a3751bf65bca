"""How long a submodel will take, and who stops it when it takes longer than the answer is of use."""

import threading
import time
from collections.abc import Callable
from typing import Final

import onnxruntime as ort

_LOOK_SECONDS: Final = 0.005
_IDLE_LOOKS: Final = 40
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
    """One thread that stops a run of ONNX Runtime when its time is over; it sleeps while nothing runs.

    A run is stopped between two operators of the graph: within one, however long, nothing can stop it.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._run: tuple[float, ort.RunOptions] | None = None
        self._wake = threading.Event()
        self._asleep = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def watch(self, until: float) -> ort.RunOptions:
        """Options for one run, which is stopped at this time of the clock, or up to 5 ms later."""
        options = ort.RunOptions()
        self._run = until, options
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="watchdog", daemon=True)
            self._thread.start()
        elif self._asleep:
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
        idle = 0
        while not self._closed:
            run = self._run
            if run is not None and self._clock() >= run[0]:
                run[1].terminate = True
            idle = 0 if run is not None else idle + 1
            if idle < _IDLE_LOOKS:
                time.sleep(_LOOK_SECONDS)
            else:
                self._sleep()
                idle = 0

    def _sleep(self) -> None:
        self._wake.clear()
        self._asleep = True
        if self._run is None and not self._closed:  # whoever comes from here on sees that a call is needed
            self._wake.wait()
        self._asleep = False
