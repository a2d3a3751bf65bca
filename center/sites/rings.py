"""Which sites take a release first: signed by a person with the offline roster key.

Without a policy every site is in ring `all`.
"""

from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

from center import durable
from center.keys import OFFLINE, CenterKeys, load_signing_key
from center.registry import Registry
from protocol.errors import BadInputError
from protocol.identity import EdgeId, FederationId, Roster
from protocol.release import Ring
from protocol.rings import RingPolicy

RINGS_FILE = Path("trust") / "rings.json"


def sign_rings(
    directory: Path,
    *,
    federation: FederationId,
    roster: Roster | None,
    canary: Iterable[EdgeId],
    early: Iterable[EdgeId],
    offline: Path | None = None,
) -> RingPolicy:
    """Sign a policy of these rings; an unchanged one keeps its number.

    Args:
        offline: folder of the offline keys, where they were moved.

    Raises:
        BadInputError: a site is named twice or is not admitted, or the offline key is not there.
    """
    current = read_rings(directory, federation=federation, keys=CenterKeys.load(directory))
    policy = RingPolicy.of(federation, (current.number if current else 0) + 1, canary=canary, early=early)
    admitted = {member.edge for member in roster.members} if roster else set()
    for site in (*policy.canary, *policy.early):
        if site not in admitted:
            raise BadInputError(f"no site {site} is admitted", advice="hanse-center status lists them")
    if current is not None and (current.canary, current.early) == (policy.canary, policy.early):
        return current
    key = load_signing_key((offline or directory / OFFLINE) / "roster.key")
    durable.write(directory / RINGS_FILE, policy.sign(key))
    with closing(Registry(directory / "registry.db")) as registry:
        registry.record("rings signed", number=policy.number, canary=list(policy.canary), early=list(policy.early))
    return policy


def read_rings(directory: Path, *, federation: FederationId, keys: CenterKeys) -> RingPolicy | None:
    """The policy in force, checked; None before the first.

    Raises:
        BadSignatureError: it was not signed by the offline key.
        MalformedMessageError: it is damaged.
    """
    path = directory / RINGS_FILE
    if not path.exists():
        return None
    return RingPolicy.open(path.read_bytes(), key=keys.roster_public, federation=federation)


def members_by_ring(policy: RingPolicy | None, roster: Roster | None) -> Mapping[Ring, tuple[EdgeId, ...]]:
    """Who is in which ring, of those who are admitted."""
    sites = [member.edge for member in roster.members] if roster else []
    if policy is None:
        return {Ring.ALL: tuple(sites)}
    return {ring: policy.members(ring, sites) for ring in Ring}
