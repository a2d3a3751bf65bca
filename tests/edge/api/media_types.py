"""Tells schemathesis how a stream of events is written: as it is."""

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def as_it_is(_context, value):
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
