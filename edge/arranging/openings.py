"""What a scenario leaves of what a question wants: masks that stay the same object as long as they are true."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.arranging.rules import excluded
from edge.arranging.scenario import Scenario
from edge.serving.filters import ANYTHING, passing
from edge.serving.shelf import Shelf

_KEPT: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class _Opening:
    wanted: NDArray[np.bool_]
    scenario: Scenario
    version: int
    mask: NDArray[np.bool_]


class Openings:
    """Those that were asked for last; for one thread."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, ...], _Opening] = OrderedDict()

    def of(self, wanted: NDArray[np.bool_], scenario: Scenario, shelf: Shelf, *, now_ms: int) -> NDArray[np.bool_]:
        """bool[size], what is wanted and wanted here, without what rules that hold now exclude; leave it as it is.

        Args:
            wanted: bool[size], as `passing` gives it.
        """
        rules = [at for at, rule in enumerate(scenario.rules) if rule.do == "exclude" and rule.holds(now_ms)]
        if scenario.filter == ANYTHING and not rules:
            return wanted
        key = (id(wanted), id(scenario), *rules)
        kept = self._kept.get(key)
        if kept and kept.wanted is wanted and kept.scenario is scenario and kept.version == shelf.version:
            return kept.mask
        mask = wanted & passing(shelf, scenario.filter, strictly=False)
        if rules:
            mask &= ~excluded(scenario, shelf, now_ms=now_ms)
        self._kept[key] = _Opening(wanted, scenario, shelf.version, mask)
        self._kept.move_to_end(key)
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return mask
