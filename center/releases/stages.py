"""Who is offered a release when: a stage for each ring that has sites, and ring `all` by growing parts of its queue."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from center.settings import RolloutSettings
from protocol.identity import EdgeId
from protocol.release import WHOLE_QUEUE, Place, Ring, queue_place


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One more group of sites is offered the release.

    Attributes:
        reach: places of the queue of ring `all` that are let in; the whole of it at other places.
        sites: that are let in by this stage and were not before, when it was planned.
    """

    place: Place
    reach: int
    sites: int


def plan(rings: Mapping[Ring, Sequence[EdgeId]], sha256: str, terms: RolloutSettings) -> tuple[Stage, ...]:
    """The stages of a release: rings without sites are passed over, ring `all` grows.

    Every step of ring `all` lets in `min_ring` sites or more: the sum of fewer would tell of single ones.

    Args:
        rings: who is in them now; who joins later is let in by the last stage.
        sha256: of the bundle, which draws the queue.
    """
    stages = [
        Stage(place=place, reach=WHOLE_QUEUE, sites=len(rings.get(ring, ())))
        for ring, place in ((Ring.CANARY, Place.CANARY), (Ring.EARLY, Place.EARLY))
        if rings.get(ring)
    ]
    queue = sorted(queue_place(edge, sha256) for edge in rings.get(Ring.ALL, ()))
    inside = 0
    share = terms.first_share if len(queue) >= terms.min_sites else 1.0
    while share < 1.0:
        reach = round(share * WHOLE_QUEUE)
        sites = sum(place < reach for place in queue)
        if sites - inside >= terms.min_ring and len(queue) - sites >= terms.min_ring:
            stages.append(Stage(place=Place.ALL, reach=reach, sites=sites - inside))
            inside = sites
        share *= terms.growth
    stages.append(Stage(place=Place.ALL, reach=WHOLE_QUEUE, sites=len(queue) - inside))
    return tuple(stages)


def members(stages: Sequence[Stage], stage: int, rings: Mapping[Ring, Sequence[EdgeId]], sha256: str) -> list[EdgeId]:
    """Whom a stage lets in that no stage before it did, as the rings are now; sorted."""
    now = stages[stage]
    if now.place is not Place.ALL:
        return sorted(rings.get(Ring(now.place.value), ()))
    before = max((one.reach for one in stages[:stage] if one.place is Place.ALL), default=0)
    return sorted(edge for edge in rings.get(Ring.ALL, ()) if before <= queue_place(edge, sha256) < now.reach)
