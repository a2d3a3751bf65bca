"""Waiting for what must come, no longer than it takes."""

import secrets
import time

from protocol.identity import EdgeId


def everything_at(owner, topics, under: str, kind: str):
    """What is retained below a topic: a broker sends it before a mark that its owner sets after asking for it."""
    found, everything, mark = {}, f"{topics.base}/{under}#", topics.status(EdgeId(f"mark-{secrets.token_hex(4)}"))
    owner.listen(everything, lambda topic, payload: found.update({topic: payload}))
    owner.listen(mark, lambda topic, payload: found.update({topic: payload}))
    owner.deliver([(mark, b"here")], window=1, seconds=10)
    eventually(lambda: mark in found)
    if kind == "embedded":
        time.sleep(0.2)  # it acknowledges before it retains
    for asked in (everything, mark):
        owner.forget(asked)
    owner.deliver([(mark, b"")], window=1, seconds=10)
    return {topic: payload for topic, payload in found.items() if payload and topic != mark}


def eventually(what, *, seconds: float = 10.0):
    """Wait until something becomes true."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return found
