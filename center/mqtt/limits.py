"""What the broker takes: checked before anything is sent, because a broker that is full drops silently."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from center.settings import BrokerSettings
from protocol.errors import BadInputError

_ADVICE = "raise it at the broker and in center.toml, or lower releases.keep and releases.keep_hours"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of retained messages.

    Attributes:
        message_bytes: payload of one message.
        messages: all together; 0: unlimited.
        total_bytes: payloads of all together; 0: unlimited.
    """

    message_bytes: int
    messages: int = 0
    total_bytes: int = 0

    @classmethod
    def of(cls, settings: BrokerSettings) -> Self:
        """Those that the operator has written down."""
        return cls(
            message_bytes=settings.max_message_bytes,
            messages=settings.max_retained_messages,
            total_bytes=settings.max_retained_bytes,
        )

    def check(self, sizes: Mapping[str, int]) -> None:
        """Would the broker take this?

        Args:
            sizes: bytes of the payload of every message that would be retained, by topic.

        Raises:
            BadInputError: a message is too large, or they are too many.
        """
        largest = max(sizes, key=lambda topic: sizes[topic], default="")
        if largest and sizes[largest] > self.message_bytes:
            raise BadInputError(
                f"{largest} has {sizes[largest]} bytes, broker.max_message_bytes is {self.message_bytes}",
                advice="raise it at the broker and in center.toml",
            )
        if 0 < self.messages < len(sizes):
            raise BadInputError(
                f"{len(sizes)} messages would be retained, broker.max_retained_messages is {self.messages}",
                advice=_ADVICE,
            )
        if 0 < self.total_bytes < (total := sum(sizes.values())):
            raise BadInputError(
                f"{total} bytes would be retained, broker.max_retained_bytes is {self.total_bytes}", advice=_ADVICE
            )


UNLIMITED = Limits(message_bytes=BrokerSettings().max_message_bytes)
"""What a broker takes that is set up as its makers deliver it."""
