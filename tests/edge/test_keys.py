"""An edge's keys: readable by itself alone, and a damaged one is named."""

import pytest

from edge.keys import Keys, load_public
from protocol.errors import BadInputError
from protocol.identity import EdgeId

NAMES = ("identity", "seal", "node")


@pytest.fixture
def folder(tmp_path):
    Keys.generate().save(tmp_path)
    return tmp_path


def test_keys_come_back_and_nobody_else_can_read_them(tmp_path) -> None:
    keys = Keys.generate()
    keys.save(tmp_path)
    assert Keys.load(tmp_path).member(EdgeId("visby")) == keys.member(EdgeId("visby"))
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["missing", "empty", "noise"])
def test_a_damaged_key_is_named(folder, name, damage) -> None:
    path = folder / f"{name}.key"
    path.unlink() if damage == "missing" else path.write_bytes(b"" if damage == "empty" else b"\xff noise")
    with pytest.raises(BadInputError, match=rf"{name}\.key cannot be read"):
        Keys.load(folder)


def test_a_key_in_the_place_of_another_is_refused(folder) -> None:
    (folder / "node.key").write_bytes((folder / "identity.key").read_bytes())
    with pytest.raises(BadInputError, match="of another kind"):
        Keys.load(folder)


@pytest.mark.parametrize("text", ["", "zz", "00" * 31])
def test_a_damaged_pinned_key_is_named(tmp_path, text) -> None:
    (tmp_path / "center.pub").write_text(text)
    with pytest.raises(BadInputError, match=r"center\.pub cannot be read"):
        load_public(tmp_path / "center.pub")
