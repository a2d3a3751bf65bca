"""What the secrets of a round are derived to: mask seeds, sealed shares, commitments (SPEC 5.8-5.11).

Everything is bound to A, the digest of the announcement: edges that were told different things derive different keys.
"""

from enum import StrEnum
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from protocol import canonical
from protocol.errors import UntrustedError
from protocol.identity import EdgeId

SEED_BYTES = 32
_NONCE_BYTES = 12


class Use(StrEnum):
    """What one edge's fresh randomness of a round is spent on; no two uses share a stream (SPEC 5.12)."""

    OWN_MASK = "own mask"
    SHARES = "shares"
    ROUNDING = "rounding"
    NOISE = "noise"


def own(entropy: bytes, use: Use, *, announcement: bytes) -> bytes:
    """32 bytes for one use of an edge's own randomness."""
    return _expand(entropy, f"own {use}", announcement)


def mask_seed(pair_secret: bytes, *, announcement: bytes) -> bytes:
    """s_ij: the seed of the mask that two edges share in one round, alike at both ends."""
    return _expand(pair_secret, "mask", announcement)


def sealing_key(pair_secret: bytes, *, announcement: bytes, dealer: EdgeId, receiver: EdgeId) -> bytes:
    """The AES-256-GCM key for what one edge seals to the other in one round; one key for each direction."""
    return _expand(pair_secret, "share", announcement, canonical.encode([dealer, receiver]))


def seal_share(share: bytes, *, key: bytes, about: bytes, secret: int) -> bytes:
    """Seal one share to one receiver: 48 bytes.

    Args:
        about: associated data, from `about`.
        secret: place of the secret in the cohort.
    """
    # A counted nonce is safe: the key serves one dealer, one receiver, one round, and each secret once.
    return AESGCM(key).encrypt(_nonce(secret), share, about)


def open_share(sealed: bytes, *, key: bytes, about: bytes, secret: int) -> bytes:
    """Undo `seal_share`.

    Raises:
        UntrustedError: changed, or of another dealer, receiver, secret or round than it is said to be.
    """
    try:
        return AESGCM(key).decrypt(_nonce(secret), sealed, about)
    except InvalidTag as error:
        raise UntrustedError("a share is not what it is said to be") from error


def about(*, announcement: bytes, dealer: EdgeId, receiver: EdgeId, secret: EdgeId) -> bytes:
    """What a sealed share is, word for word: the round, who dealt it to whom, and of which secret.

    The dealer's own place stands for its own mask, another edge's for the mask it shares with that edge.
    """
    kind = "own" if secret == dealer else "pair"
    return canonical.encode([announcement.hex(), dealer, receiver, kind, secret])


def commitment(seed: bytes, *, announcement: bytes, edges: tuple[EdgeId, ...]) -> bytes:
    """32 bytes that fix a seed and do not give it away.

    Args:
        edges: whose mask it is: one edge, or a pair sorted by name.
    """
    names = canonical.encode(list(edges))
    return sha256(b"hanse/1 commitment\0" + announcement + names + b"\0" + seed).digest()


def _expand(secret: bytes, purpose: str, announcement: bytes, more: bytes = b"") -> bytes:
    # The extract step of HKDF is left out: the secrets are uniform already (RFC 5869, 3.3).
    info = b"hanse/1 round " + purpose.encode() + b"\0" + announcement + more
    return HKDFExpand(SHA256(), SEED_BYTES, info).derive(secret)


def _nonce(secret: int) -> bytes:
    return secret.to_bytes(_NONCE_BYTES, "little")
