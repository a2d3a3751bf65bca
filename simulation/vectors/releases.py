"""One release, byte by byte: its files, blocks, names, place in the queue, and what is said of it (SPEC 9)."""

from typing import Any

from protocol import audit, rec_id
from protocol.blocks import BlockCipher
from protocol.bundle import CARD, describe
from protocol.identity import EdgeId
from protocol.release import Offer, Place, queue_place
from protocol.rings import RingPolicy
from protocol.sealing import ContentKey, encrypt
from simulation.vectors.known_round import FEDERATION, NAMES, OFFLINE, seed

_PATTERNS = {CARD: (b"{}", 1), "recommend/model.onnx": (bytes(range(256)), 1_500)}
_FILES = {path: pattern * times for path, (pattern, times) in _PATTERNS.items()}
_TOPIC = f"hanse/1/{FEDERATION}/tuf/timestamp.json"


def known_release() -> dict[str, Any]:
    """A content key and two files in; everything that follows from them out."""
    key = ContentKey(number=3, secret=seed("content key"))
    cipher = BlockCipher(key)
    manifest = describe(_FILES.items(), cipher=cipher)
    digest = manifest.bundle_digest
    offer = Offer(
        place=Place.ALL, version=8, sha256=digest, bytes=manifest.total_bytes, submodels=("recommend",), evaluation={}
    )
    bergen, bruges, _, visby = NAMES
    rings = RingPolicy.of(FEDERATION, 3, canary=[bergen, bruges], early=[visby])
    founded = audit.Entry.after(None, time_ms=1, kind="founded", facts={"federation": FEDERATION})
    signed = audit.Entry.after(founded, time_ms=2, kind="release signed", facts={"version": 8, "sha256": digest})
    nonce = seed("nonce")[:12]
    return {
        "why": "a bundle of two files under one content key; the second file has two blocks",
        "expect": None,
        "content_key": key.secret.hex(),
        "content_key_id": key.key_id.hex(),
        "files": {path: {"pattern": pattern.hex(), "times": times} for path, (pattern, times) in _PATTERNS.items()},
        "manifest": manifest.to_bytes().hex(),
        "bundle_digest": digest,
        "card_block": cipher.seal(_FILES[CARD]).hex(),
        "topic": _TOPIC,
        "nonce": nonce.hex(),
        "encrypted_metadata": encrypt(b"timestamp", key=key, topic=_TOPIC, nonce=nonce).hex(),
        "target": offer.target,
        "custom": offer.to_custom(),
        "queue_places": {site: queue_place(EdgeId(site), digest) for site in (*NAMES, "hamburg")},
        "rings": rings.sign(OFFLINE).hex(),
        "rec_id": rec_id.make(version=8, sha256=digest, drawn=seed("drawn")[:8]),
        "audit": [founded.to_bytes().hex(), signed.to_bytes().hex()],
        "audit_head": signed.digest,
    }
