import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import canonical
from protocol.blocks import BLOCK_BYTES, BlockCipher
from protocol.bundle import CARD, FileDigest, Manifest, check_directory, check_paths, describe
from protocol.card import BundleCard, CatalogueCard, check_listed, parse
from protocol.errors import BadInputError, BadSignatureError, MalformedMessageError
from protocol.identity import FederationId
from protocol.release import Kind
from protocol.sealing import ContentKey

CIPHER = BlockCipher(ContentKey(number=1, secret=b"\x05" * 32))
FILES = {CARD: b"{}", "recommend/model.onnx": bytes(BLOCK_BYTES + 1), "recommend/item_bias.bin": b""}
DIGESTS = {path: FileDigest.of(data) for path, data in FILES.items()}
BUNDLE = BundleCard(
    version=3,
    federation=FederationId("hanse"),
    created_ms=1,
    catalogue_version=1,
    catalogue_sha256="a" * 64,
    submodels={"recommend": {"history_length": 50}},
    training={"rounds": 8},
    evaluation={"ndcg@10": 0.2},
    files={"recommend/model.onnx": FileDigest.of(b"model")},
)
CATALOGUE = CatalogueCard(version=1, items=2, bytes_unpacked=99, files={"catalogue.jsonl.gz": FileDigest.of(b"rows")})


@pytest.fixture(scope="module")
def manifest():
    return describe(FILES.items(), cipher=CIPHER)


def changed(manifest, **changes):
    value = canonical.decode(manifest.to_bytes())
    value["files"]["recommend/model.onnx"].update(changes)
    return canonical.encode(value)


def test_a_manifest_survives_the_road(manifest):
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    assert manifest.total_bytes == BLOCK_BYTES + 3
    assert {path: len(entry.blocks) for path, entry in manifest.files.items()} == dict(
        zip(FILES, [1, 2, 0], strict=True)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 1},
        {"size": -1},
        {"size": True},
        {"size": 2**60},
        {"sha256": "x"},
        {"sha256": "A" * 64},
        {"blocks": []},
        {"blocks": ["a" * 64]},
        {"blocks": ["a" * 64, "../" + "a" * 61]},
        {"mode": 0o777},
    ],
)
def test_a_manifest_that_cannot_be_is_refused(manifest, changes):
    with pytest.raises(MalformedMessageError):
        Manifest.from_bytes(changed(manifest, **changes))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"files":{},"format":1}', b'{"files":{},"format":2}'])
def test_noise_is_no_manifest(data):
    with pytest.raises(MalformedMessageError):
        Manifest.from_bytes(data)


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "/etc/passwd",
        "a/../../x",
        "a\\b",
        "a\0b",
        "",
        ".",
        "a//b",
        "a/",
        ".ssh",
        "a/b/c/d/e",
        "C:x",
        "ü",
        "x" * 101,
    ],
)
def test_a_path_that_leaves_the_directory_is_refused(path):
    with pytest.raises(MalformedMessageError):
        check_paths([path])


@given(st.text(max_size=12))
def test_no_accepted_path_can_leave_the_directory(path):
    try:
        check_paths([path])
    except MalformedMessageError:
        return
    assert path
    assert not set(path) & set("\\\0:")
    assert all(part and not part.startswith(".") for part in path.split("/"))


@pytest.mark.parametrize("paths", [["a", "A"], ["a", "a/b"], ["a/b", "A"], [f"f{i}" for i in range(257)]])
def test_files_that_collide_or_are_too_many_are_refused(paths):
    with pytest.raises(MalformedMessageError):
        check_paths(paths)


def test_a_directory_that_no_edge_would_take_is_not_published():
    with pytest.raises(BadInputError, match="twice"):
        describe([(CARD, b"1"), (CARD, b"2")], cipher=CIPHER)
    with pytest.raises(BadInputError, match=r"lists no card\.json"):
        describe([("model.onnx", b"1")], cipher=CIPHER)


def test_a_whole_directory_passes(manifest):
    check_directory(manifest, DIGESTS)


@pytest.mark.parametrize(
    ("found", "what"),
    [
        ({path: d for path, d in DIGESTS.items() if path != CARD}, "card.json is missing"),
        (DIGESTS | {"evil.so": FileDigest.of(b"x")}, "evil.so does not belong"),
        (DIGESTS | {CARD: FileDigest.of(b"[]")}, "card.json does not hold"),
    ],
)
def test_a_directory_with_missing_added_or_changed_files_is_refused(manifest, found, what):
    with pytest.raises(BadSignatureError, match=what):
        check_directory(manifest, found)


@pytest.mark.parametrize(("kind", "card"), [(Kind.BUNDLE, BUNDLE), (Kind.CATALOGUE, CATALOGUE)])
def test_a_card_survives_the_road_and_is_not_taken_for_the_other_kind(kind, card):
    assert parse(kind, card.to_bytes()) == card
    with pytest.raises(MalformedMessageError):
        parse(Kind.BUNDLE if kind is Kind.CATALOGUE else Kind.CATALOGUE, card.to_bytes())


@pytest.mark.parametrize("change", [{"format": 2}, {"extra": 1}, {"federation": "No Slug"}, {"files": {"../x": {}}}])
def test_a_card_that_cannot_be_is_refused(change):
    with pytest.raises(MalformedMessageError):
        BundleCard.from_bytes(canonical.encode(canonical.decode(BUNDLE.to_bytes()) | change))


def test_a_card_that_lies_about_its_files_is_refused():
    held = dict(BUNDLE.files) | {CARD: FileDigest.of(b"card")}
    check_listed(BUNDLE, held)
    with pytest.raises(MalformedMessageError, match="lists other files"):
        check_listed(BUNDLE, held | {"more.bin": FileDigest.of(b"x")})
