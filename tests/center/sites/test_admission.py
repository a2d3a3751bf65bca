"""Who is in: a roster is signed by a person with the offline key, and a removal can be given again."""

from datetime import UTC, datetime

import pytest

from center.founding import Addresses, found
from center.keys import CenterKeys
from center.registry import Registry
from center.sites import admission
from edge.keys import Keys
from protocol.errors import BadInputError, BadSignatureError, UntrustedError
from protocol.identity import EdgeId, FederationId

HANSE = FederationId("hanse")


@pytest.fixture
def folder(tmp_path):
    addresses = Addresses(host="127.0.0.1", gateway_port=1, superlink_port=2, broker_port=3)
    found(tmp_path, federation=HANSE, addresses=addresses, now=datetime.now(UTC))
    return tmp_path


@pytest.fixture
def registry(folder):
    registry = Registry(folder / "registry.db")
    for name in ("visby", "bergen"):
        registry.add_site(Keys.generate().member(EdgeId(name)), certificate="pem", now_ms=1)
    yield registry
    registry.close()


def _sign(folder, registry, **options):
    return admission.sign_roster(folder, federation=HANSE, registry=registry, offline=folder / "offline", **options)


def _names(roster):
    return [member.edge for member in roster.members]


def test_everybody_who_joined_is_admitted_and_the_same_roster_is_not_signed_twice(folder, registry) -> None:
    first = _sign(folder, registry)
    assert (first.version, _names(first)) == (1, ["bergen", "visby"])
    assert _sign(folder, registry).version == 1
    assert admission.read_roster(folder, federation=HANSE, keys=CenterKeys.load(folder)) == first


def test_without_the_offline_key_nobody_is_admitted_and_nobody_removed(folder, registry) -> None:
    _sign(folder, registry)
    (folder / "offline" / "roster.key").rename(folder / "carried-off")
    with pytest.raises(BadInputError, match=r"roster\.key is missing"):
        _sign(folder, registry, without=EdgeId("visby"))
    assert len(registry.sites()) == 2
    assert _sign(folder, registry).version == 1  # what is signed already needs no key


def test_an_interrupted_removal_can_be_given_again(folder, registry) -> None:
    _sign(folder, registry)
    again = [_sign(folder, registry, without=EdgeId("visby")) for _ in range(2)]
    assert [(roster.version, _names(roster)) for roster in again] == [(2, ["bergen"])] * 2


def test_the_last_site_stays(folder, registry) -> None:
    registry.remove_site(EdgeId("bergen"))
    _sign(folder, registry)
    with pytest.raises(BadInputError, match="visby is the last site"):
        _sign(folder, registry, without=EdgeId("visby"))


def test_a_removed_sites_token_lets_nobody_in(registry) -> None:
    member = Keys.generate().member(EdgeId("riga"))
    registry.add_token("digest", site=member.edge, expires_ms=10)
    registry.redeem("digest", member=member, now_ms=1)
    registry.add_site(member, certificate="pem", now_ms=1)
    registry.remove_site(member.edge)
    with pytest.raises(UntrustedError):
        registry.check_token("digest", now_ms=2, member=member)


def test_a_roster_that_was_tampered_with_is_not_read(folder, registry) -> None:
    _sign(folder, registry)
    path = folder / admission.ROSTER_FILE
    path.write_bytes(path.read_bytes().replace(b"bergen", b"berlin"))
    with pytest.raises(BadSignatureError):
        admission.read_roster(folder, federation=HANSE, keys=CenterKeys.load(folder))


def _many(registry, count):
    names = [EdgeId(f"site-{number:02}") for number in range(count)]
    for name in names:
        registry.add_site(Keys.generate().member(name), certificate="pem", now_ms=1)
    return names


def _groups(path, groups):
    path.write_text("".join(f"group-{number} = {list(map(str, names))}\n" for number, names in enumerate(groups)))
    return admission.read_groups(path)


def test_groups_are_signed_into_the_roster_and_stay_until_they_are_ended(folder, registry, tmp_path) -> None:
    names = [EdgeId("bergen"), EdgeId("visby"), *_many(registry, 23)]
    groups = _groups(tmp_path / "groups.toml", [names[:8], names[8:16], names[16:]])
    assert _sign(folder, registry).robust is False
    robust = _sign(folder, registry, groups=groups)
    assert (robust.version, robust.robust, [len(group) for group in robust.groups]) == (2, True, [8, 8, 9])
    assert _sign(folder, registry) == robust
    smaller = _sign(folder, registry, without=names[-1])
    assert (smaller.version, [len(group) for group in smaller.groups]) == (3, [8, 8, 8])
    assert _sign(folder, registry, groups=[]).robust is False


def test_a_group_that_would_not_survive_dropouts_or_forgets_a_site_is_refused(folder, registry, tmp_path) -> None:
    names = [EdgeId("bergen"), EdgeId("visby"), *_many(registry, 22)]
    for groups in (
        [names[:12], names[12:]],
        [names[:7], names[7:16], names[16:]],
        [names[:8], names[8:16], names[17:]],
    ):
        with pytest.raises(BadInputError, match="group"):
            _sign(folder, registry, groups=_groups(tmp_path / "groups.toml", groups))


@pytest.mark.parametrize("text", ["north = 3", "north = [1]", "north = [", ""])
def test_a_file_that_lists_no_groups_says_so(tmp_path, text) -> None:
    (tmp_path / "groups.toml").write_text(text)
    if text:
        with pytest.raises(BadInputError, match=r"groups\.toml"):
            admission.read_groups(tmp_path / "groups.toml")
    else:
        assert admission.read_groups(tmp_path / "groups.toml") == []
