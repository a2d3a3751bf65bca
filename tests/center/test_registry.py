import subprocess
import sys

import pytest

from center.registry import Registry
from protocol.errors import BadInputError, UnavailableError, UntrustedError
from protocol.identity import EdgeId, Member


def member(name: str, identity: bytes = b"i") -> Member:
    return Member(edge=EdgeId(name), identity=identity * 32, seal=b"s", node=b"n")


@pytest.fixture
def registry(tmp_path):
    registry = Registry(tmp_path / "registry.db")
    yield registry
    registry.close()


def test_a_token_works_once(registry) -> None:
    registry.add_token("digest", site=EdgeId("visby"), expires_ms=10)
    registry.redeem("digest", member=member("visby"), now_ms=5)
    with pytest.raises(UntrustedError):
        registry.redeem("digest", member=member("visby", b"x"), now_ms=5)


def test_an_edge_whose_answer_was_lost_may_ask_again(registry) -> None:
    registry.add_token("digest", site=EdgeId("visby"), expires_ms=10)
    registry.redeem("digest", member=member("visby"), now_ms=5)
    registry.redeem("digest", member=member("visby"), now_ms=6)


@pytest.mark.parametrize(
    ("digest", "name", "now_ms"), [("other", "visby", 5), ("digest", "bergen", 5), ("digest", "visby", 11)]
)
def test_a_wrong_late_or_borrowed_token_is_refused(registry, digest, name, now_ms) -> None:
    registry.add_token("digest", site=EdgeId("visby"), expires_ms=10)
    with pytest.raises(UntrustedError):
        registry.redeem(digest, member=member(name), now_ms=now_ms)


def test_a_newer_token_replaces_an_unused_one(registry) -> None:
    registry.add_token("first", site=EdgeId("visby"), expires_ms=10)
    registry.add_token("second", site=EdgeId("visby"), expires_ms=10)
    with pytest.raises(UntrustedError):
        registry.check_token("first", now_ms=5)
    registry.check_token("second", now_ms=5)


def test_a_site_joins_once(registry) -> None:
    registry.add_site(member("visby"), certificate="pem", now_ms=5)
    with pytest.raises(BadInputError, match="joined already"):
        registry.add_token("digest", site=EdgeId("visby"), expires_ms=10)


def test_round_numbers_only_rise_and_are_never_used_again(registry, tmp_path) -> None:
    cohort = (EdgeId("visby"),)
    first = registry.begin_round("c", purpose="train", cohort=cohort, now_ms=1)
    again = Registry(tmp_path / "registry.db")
    second = again.begin_round("c", purpose="train", cohort=cohort, now_ms=1)
    again.close()
    assert second == first + 1


def test_a_campaign_that_was_running_when_the_center_died_comes_first(registry) -> None:
    registry.ask_campaign("old", submodel="recommend", rounds=1, now_ms=1)
    registry.ask_campaign("new", submodel="recommend", rounds=1, now_ms=2)
    registry.set_campaign("new", state="running")
    assert registry.next_campaign().id == "new"
    registry.set_campaign("new", state="finished")
    assert registry.next_campaign().id == "old"


def test_a_damaged_registry_says_so(tmp_path) -> None:
    (tmp_path / "registry.db").write_bytes(b"no database, but quite long enough to look like a file" * 40)
    with pytest.raises(UnavailableError, match=r"registry\.db"):
        Registry(tmp_path / "registry.db")


def test_a_command_on_books_that_are_there_loads_no_data_frames(tmp_path) -> None:
    """It would cost each of them half a second."""
    path = tmp_path / "registry.db"
    Registry(path).close()
    program = (
        "import sys; from pathlib import Path; from center.registry import Registry; "
        "Registry(Path(sys.argv[1])).close(); print('pandas' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"
