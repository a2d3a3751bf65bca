"""The targets of all delegated roles: what is signed, and what is staged to be signed next (SPEC 9.7)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# tuf re-exports its public names without saying so to type checkers.
from tuf.api.metadata import TargetFile, Targets  # type: ignore[attr-defined]

from center.signing.metadata import Chain
from protocol.errors import BadInputError, MalformedMessageError
from protocol.release import RELEASED, ROLES, Kind, Offer, Place, Ring, parse_target, role_of

_BUNDLES = RELEASED[Ring.CANARY] | {Place.CANDIDATE}
_HOLDING_FILES = {*_BUNDLES, Place.CATALOGUE}
_NUMBERS = "x-hanse-numbers"
"""The field of a delegated role that remembers the highest number of each place it has ever listed."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A target that is to be listed."""

    target: TargetFile
    content: bytes


class TargetList:
    """Targets by name."""

    def __init__(self, chain: Chain) -> None:
        self._staged: dict[str, Staged | None] = {}
        self.rest_on(chain)

    def rest_on(self, chain: Chain) -> None:
        """Other metadata are in force now; what is staged stays staged."""
        self._delegated = {role: chain.delegated(role) for role in ROLES}

    def files(self) -> dict[str, TargetFile]:
        """Every target, signed or staged."""
        files = {name: file for name, file in self._signed().items() if name not in self._staged}
        return files | {name: staged.target for name, staged in self._staged.items() if staged is not None}

    def file(self, name: str) -> TargetFile:
        """One target.

        Raises:
            BadInputError: there is no such target.
        """
        found = self.files().get(name)
        if found is None:
            raise BadInputError(f"{name} is not in the repository")
        return found

    def staged(self, name: str) -> Staged | None:
        return self._staged.get(name)

    def fresh(self) -> list[Staged]:
        """All that is to be listed and was not."""
        return [staged for staged in self._staged.values() if staged is not None]

    @property
    def changed_roles(self) -> set[str]:
        return {role_of(parse_target(name)[0]) for name in self._staged}

    def put(self, name: str, content: bytes, *, custom: Mapping[str, Any]) -> None:
        """Stage a target.

        Raises:
            BadInputError: not the name of a target.
        """
        try:
            parse_target(name)
        except MalformedMessageError as error:
            raise BadInputError(str(error)) from error
        target = TargetFile.from_data(name, content, ["sha256"])
        target.unrecognized_fields["custom"] = dict(custom)
        self._staged[name] = Staged(target, content)

    def drop(self, name: str) -> None:
        """Stage the end of a target.

        Raises:
            BadInputError: there is no such target.
        """
        self.file(name)
        self._staged[name] = None

    def offers(self) -> dict[str, Offer]:
        """Every release and candidate, by target name."""
        return _offers(self.files())

    def next_version(self, kind: Kind) -> int:
        """The number that the next release of a kind must carry; none is used twice, also not a removed one."""
        places = _BUNDLES if kind is Kind.BUNDLE else {Place.CATALOGUE}
        listed = [parse_target(name) for name in self.files()]
        current = [number for place, number in listed if place in places]
        past = [_highest(self._delegated[role_of(place)], place) for place in places]
        return max((*current, *past), default=0) + 1

    def check_number(self, offer: Offer) -> None:
        """May a release carry this number?

        Raises:
            BadInputError: it is neither the next one nor that of the same files at another place.
        """
        following = self.next_version(offer.kind)
        known = {**_offers(self._signed()), **self.offers()}
        same = [other for other in known.values() if (other.kind, other.version) == (offer.kind, offer.version)]
        if offer.version != following and not same:
            raise BadInputError(f"the next {offer.kind} is number {following}, not {offer.version}")
        if any(other.sha256 != offer.sha256 or other.place is offer.place for other in same):
            raise BadInputError(f"{offer.kind} {offer.version} is taken, the next {offer.kind} is number {following}")

    def write_into(self, targets: Targets, role: str) -> None:
        """Put what is staged for a role into its metadata."""
        for name, staged in self._staged.items():
            place, number = parse_target(name)
            if role_of(place) != role:
                continue
            numbers = targets.unrecognized_fields.setdefault(_NUMBERS, {})
            numbers[place] = max(numbers.get(place, 0), number)
            if staged is None:
                targets.targets.pop(name, None)
            else:
                targets.targets[name] = staged.target

    def _signed(self) -> dict[str, TargetFile]:
        return {name: file for targets in self._delegated.values() for name, file in targets.targets.items()}


def _offers(files: Mapping[str, TargetFile]) -> dict[str, Offer]:
    return {
        name: Offer.from_custom(name, file.custom)
        for name, file in files.items()
        if parse_target(name)[0] in _HOLDING_FILES
    }


def _highest(targets: Targets, place: Place) -> int:
    return int(targets.unrecognized_fields.get(_NUMBERS, {}).get(place, 0))
