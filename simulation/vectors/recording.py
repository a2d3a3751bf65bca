"""Known answers, for our tests and for other implementations.

Writes ``epoch.json``, ``round.json``, ``release.json``, ``content.json`` and ``faults/*.json``; what is in them stands
in ``tests/vectors/README.md``. The same bytes come out every time, as long as ``epoch.json`` is there: it holds the one
thing that is recorded.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from protocol import round_keys
from protocol.fixed_point import encode
from protocol.identity import EdgeId
from protocol.masking import keystream
from protocol.messages import Abandonment
from protocol.round_keys import Use
from simulation.vectors import contents, faults, releases
from simulation.vectors.known_round import (
    CALL,
    CENTER,
    DROPPED,
    LAYOUT,
    NAMES,
    OFFLINE,
    ROSTER,
    ROUND,
    SURVIVORS,
    KnownRound,
    begun,
    prekey,
    seed,
    signing_key,
    values,
)

CONTENT, EPOCH, FAULTS, RELEASE, WHOLE_ROUND = "content.json", "epoch.json", "faults", "release.json", "round.json"


def write(directory: Path) -> None:
    """Write all vectors into a folder; what else is there stays."""
    (directory / FAULTS).mkdir(parents=True, exist_ok=True)
    recorded = directory / EPOCH
    known = KnownRound.from_json(json.loads(recorded.read_text())) if recorded.exists() else KnownRound.record()
    _save(recorded, epoch(known))
    _save(directory / WHOLE_ROUND, whole_round(known))
    _save(directory / RELEASE, releases.known_release())
    _save(directory / CONTENT, contents.known_items())
    written = dict(faults.all_of(known))
    for old in (directory / FAULTS).glob("*.json"):
        if old.stem not in written:
            old.unlink()
    for name, content in written.items():
        _save(directory / FAULTS / f"{name}.json", content)


def _save(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _by_edge(what: Callable[[EdgeId], bytes], edges: tuple[EdgeId, ...] = NAMES) -> dict[str, str]:
    return {edge: what(edge).hex() for edge in edges}


def epoch(known: KnownRound) -> dict[str, Any]:
    """An epoch of four edges: keys in, the first states of all pairs out."""
    return {
        "why": "four edges publish prekeys, deal roots and keep them; both ends of each pair hold one state",
        "expect": None,
        "center_key": CENTER.private_bytes_raw().hex(),
        "roster_key": OFFLINE.private_bytes_raw().hex(),
        "identity_keys": _by_edge(lambda edge: signing_key(edge).private_bytes_raw()),
        "roster": ROSTER.sign(OFFLINE).hex(),
        "call": CALL.sign(CENTER).hex(),
        "prekey_secrets": _by_edge(lambda edge: prekey(edge).to_bytes()),
        "prekeys": _by_edge(lambda edge: begun(edge).published),
        "randomness": _by_edge(lambda edge: seed(f"randomness of {edge}")),
        "roots": _by_edge(lambda edge: known.roots[edge]),
        "states": {edge: {peer: s.hex() for peer, s in sorted(known.keys[edge].states.items())} for edge in NAMES},
    }


def whole_round(known: KnownRound) -> dict[str, Any]:
    """A round in which one of four edges drops before the upload: entropy and values in, messages and sum out."""
    digest = known.announcement.digest()
    secrets = {edge: known.keys[edge].at_round(ROUND)[1] for edge in NAMES}

    def own(edge: EdgeId, use: Use) -> bytes:
        return round_keys.own(seed(f"entropy of {edge}"), use, announcement=digest)

    def encoded(edge: EdgeId) -> bytes:
        words = encode(values(edge), layout=LAYOUT, edges=len(NAMES), seed=own(edge, Use.ROUNDING))
        return words.astype("<u4").tobytes()

    def pairs(of: Callable[[EdgeId, EdgeId], bytes]) -> dict[str, dict[str, str]]:
        return {edge: {peer: of(edge, peer).hex() for peer in NAMES if peer != edge} for edge in NAMES}

    return {
        "why": f"four edges, threshold 3; {DROPPED} masks its update too, but it does not arrive",
        "expect": None,
        "announcement": known.announcement.sign(CENTER).hex(),
        "announcement_digest": digest.hex(),
        "entropy": _by_edge(lambda edge: seed(f"entropy of {edge}")),
        "values": {edge: {name: value.tolist() for name, value in values(edge).items()} for edge in NAMES},
        "pair_secrets": pairs(lambda edge, peer: secrets[edge][peer]),
        "pair_mask_seeds": pairs(lambda edge, peer: round_keys.mask_seed(secrets[edge][peer], announcement=digest)),
        "own_mask_seeds": _by_edge(lambda edge: own(edge, Use.OWN_MASK)),
        "rounding_seeds": _by_edge(lambda edge: own(edge, Use.ROUNDING)),
        "share_coefficients": _by_edge(lambda edge: keystream(own(edge, Use.SHARES), 4 * 2 * 32)),
        "sealing_keys": pairs(
            lambda edge, peer: round_keys.sealing_key(
                secrets[edge][peer], announcement=digest, dealer=edge, receiver=peer
            )
        ),
        "encoded_words": _by_edge(encoded),
        "masked_updates": _by_edge(lambda edge: known.masked[edge][1]),
        "survivors": known.survivors.hex(),
        "survivor_signatures": _by_edge(lambda edge: known.signed[edge][1], SURVIVORS),
        "unmask_requests": _by_edge(lambda edge: known.requests[edge], SURVIVORS),
        "unmaskings": _by_edge(lambda edge: known.unmasked[edge][1], SURVIVORS),
        "sum_words": known.summed.total.astype("<u4").tobytes().hex(),
        "sums": {name: total.tolist() for name, total in known.summed.sums().items()},
        "abandonments": _by_edge(lambda edge: Abandonment.signed(digest, edge=edge, key=signing_key(edge)).to_bytes()),
    }
