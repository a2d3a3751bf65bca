"""All that answers a shop's questions, put together once: one object a part, no part knows the HTTP above it."""

from dataclasses import dataclass

from edge.serving.service import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """What the routes ask.

    Attributes:
        service: recommendations, similar items, events.
    """

    service: Service
