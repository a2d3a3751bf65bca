"""The roster: who is in. Signed with the offline key by a person, published by whoever runs the center."""

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from center import durable
from center.keys import CenterKeys, load_signing_key
from center.registry import Registry
from protocol.errors import BadInputError
from protocol.identity import EdgeId, FederationId, Roster, edge_id

ROSTER_FILE = Path("trust") / "roster.json"


def sign_roster(
    directory: Path,
    *,
    federation: FederationId,
    registry: Registry,
    offline: Path,
    without: EdgeId | None = None,
    groups: Sequence[Sequence[EdgeId]] | None = None,
) -> Roster:
    """Sign a roster of all sites that have joined; an unchanged roster keeps its version.

    Args:
        offline: folder of the offline keys.
        without: a site that is being removed.
        groups: whose sums the center shall see, to trim outliers; empty: none any more; None: as they are.

    Raises:
        BadInputError: no site has joined, the last one would go, the offline key is not there, or the groups do not
            hold every site once.
    """
    joined = registry.sites()
    sites = tuple(member for member in joined if member.edge != without)
    if joined and not sites:
        raise BadInputError(f"{without} is the last site", advice="a federation has at least one")
    if not sites:
        raise BadInputError("no site has joined yet", advice="hanse-center enroll SITE, then hanse-edge join TOKEN")
    current = read_roster(directory, federation=federation, keys=CenterKeys.load(directory))
    if groups is None and current is not None and current.robust:
        groups = [[edge for edge in group if edge != without] for group in current.groups]
    roster = Roster.of(federation, (current.version if current else 0) + 1, sites, groups=groups or None)
    if current is not None and replace(roster, version=current.version) == current:
        return current
    key = load_signing_key(offline / "roster.key")
    durable.write(directory / ROSTER_FILE, roster.sign(key))
    return roster


def read_groups(path: Path) -> list[list[EdgeId]]:
    """Groups as an operator writes them: TOML, ``north = ["bergen", "visby"]``, one line a group.

    Raises:
        BadInputError: it cannot be read, or is something else.
    """
    try:
        groups = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path} cannot be read: {error}") from error
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in groups.values()):
        raise BadInputError(f"{path} does not list groups", advice='write lines such as north = ["bergen", "visby"]')
    return [[edge_id(name) for name in names] for names in groups.values()]


def read_roster(directory: Path, *, federation: FederationId, keys: CenterKeys) -> Roster | None:
    """The roster in force, checked; None before the first.

    Raises:
        BadSignatureError: it was not signed by the offline key.
        MalformedMessageError: it is damaged.
    """
    path = directory / ROSTER_FILE
    if not path.exists():
        return None
    return Roster.open(path.read_bytes(), key=keys.roster_public, federation=federation)
