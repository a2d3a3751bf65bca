import random
import resource
import shutil
from contextlib import closing

import pytest

from edge.releases.assembly import Assembly, measure
from protocol import blocks
from protocol.blocks import BLOCK_BYTES, BlockCipher
from protocol.bundle import CARD, describe
from protocol.errors import BadSignatureError, DamagedBlockError, NoSpaceError, UntrustedReleaseError
from protocol.sealing import ContentKey, digest

CIPHER = BlockCipher(ContentKey(number=1, secret=b"\x05" * 32))
NOISE = random.Random(4).randbytes(5 * BLOCK_BYTES)
FILES = {CARD: b"{}", "recommend/model.onnx": NOISE[: 3 * BLOCK_BYTES + 9], "recommend/empty.bin": b""}


def release(files, cipher=CIPHER):
    manifest = describe(files.items(), cipher=cipher)
    payloads = [cipher.seal(block) for data in files.values() for block in blocks.cut(data)]
    return manifest, {digest(payload): payload for payload in payloads}


def assemble(folder, files, *, known=(), stop_after=None):
    """Put blocks in until there are enough; how many were asked for."""
    manifest, payloads = release(files)
    with closing(Assembly(manifest, folder=folder, cipher=CIPHER, known=known)) as assembly:
        missing = assembly.missing()
        for block in missing[:stop_after]:
            assembly.put(block, payloads[block])
        if stop_after is None:
            return assembly.finish(), missing
        return None, missing


def put_all(assembly, payloads):
    for block in assembly.missing():
        assembly.put(block, payloads[block])


def content(directory):
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_blocks_become_the_files_they_were(tmp_path):
    directory, missing = assemble(tmp_path, FILES)
    assert content(directory) == FILES
    assert len(missing) == 5


def test_an_interrupted_download_asks_only_for_what_is_missing(tmp_path):
    _, first = assemble(tmp_path, FILES, stop_after=3)
    directory, second = assemble(tmp_path, FILES)
    assert set(second) == set(first[3:])
    assert content(directory) == FILES


def test_a_complete_download_asks_for_nothing(tmp_path):
    first, _ = assemble(tmp_path, FILES)
    second, missing = assemble(tmp_path, FILES)
    assert (first, missing) == (second, [])


def test_blocks_of_the_release_in_the_other_slot_are_not_fetched_again(tmp_path):
    old, _ = assemble(tmp_path / "old", FILES)
    changed = bytearray(FILES["recommend/model.onnx"])
    changed[BLOCK_BYTES + 5] ^= 1
    directory, missing = assemble(tmp_path / "new", {**FILES, "recommend/model.onnx": bytes(changed)}, known=[old])
    assert len(missing) == 1
    assert content(directory)["recommend/model.onnx"] == bytes(changed)


def test_a_block_that_occurs_twice_is_fetched_once(tmp_path):
    directory, missing = assemble(tmp_path, {CARD: b"{}", "a": bytes(3 * BLOCK_BYTES), "b": NOISE, "c": NOISE})
    assert len(missing) == 1 + 1 + 5
    assert content(directory)["c"] == NOISE


def test_damage_on_disk_between_two_attempts_is_repaired(tmp_path):
    assemble(tmp_path, FILES, stop_after=5)
    (partial,) = tmp_path.glob("*.part")
    with (partial / "recommend/model.onnx").open("r+b") as file:
        file.seek(BLOCK_BYTES)
        file.write(b"rotten")
    directory, missing = assemble(tmp_path, FILES)
    assert len(missing) == 1
    assert content(directory) == FILES


def test_a_tampered_block_is_refused_and_leaves_no_trace(tmp_path):
    manifest, payloads = release(FILES)
    assembly = Assembly(manifest, folder=tmp_path, cipher=CIPHER)
    block = assembly.missing()[1]
    with pytest.raises(DamagedBlockError):
        assembly.put(block, payloads[block][:-1] + b"x")
    assert block in assembly.missing()
    assembly.put(block, payloads[block])


def test_a_manifest_whose_blocks_do_not_make_its_file_is_refused(tmp_path):
    manifest, payloads = release(FILES)
    model = manifest.files["recommend/model.onnx"].blocks
    last, first = model[-1], model[0]
    assembly = Assembly(manifest, folder=tmp_path, cipher=CIPHER)
    assembly._places[last] = assembly._places.pop(first)
    with pytest.raises(UntrustedReleaseError, match="its place has another length"):
        assembly.put(last, payloads[last])


def test_a_directory_that_is_not_complete_gets_no_final_name(tmp_path):
    manifest, _ = release(FILES)
    with pytest.raises(BadSignatureError):
        Assembly(manifest, folder=tmp_path, cipher=CIPHER).finish()
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]


def test_a_half_fetched_release_helps_the_next_one_and_is_removed(tmp_path):
    assemble(tmp_path, FILES, stop_after=5)
    changed = bytearray(FILES["recommend/model.onnx"])
    changed[2 * BLOCK_BYTES] ^= 1
    directory, missing = assemble(tmp_path, {**FILES, "recommend/model.onnx": bytes(changed)})
    assert len(missing) == 1
    assert list(tmp_path.iterdir()) == [directory]


def test_a_download_goes_on_under_another_content_key(tmp_path):
    """An edge was removed meanwhile: all is encrypted anew, and the files are what they were."""
    assemble(tmp_path, FILES, stop_after=3)
    other = BlockCipher(ContentKey(number=2, secret=b"\x06" * 32))
    manifest, payloads = release(FILES, other)
    with closing(Assembly(manifest, folder=tmp_path, cipher=other)) as assembly:
        assert len(assembly.missing()) == 2
        put_all(assembly, payloads)
        assert content(assembly.finish()) == FILES


@pytest.mark.parametrize("order", ["backwards", "shuffled"])
def test_the_order_of_blocks_does_not_matter(tmp_path, order):
    manifest, payloads = release(FILES)
    with closing(Assembly(manifest, folder=tmp_path, cipher=CIPHER)) as assembly:
        missing = assembly.missing()[::-1]
        if order == "shuffled":
            random.Random(3).shuffle(missing)
        for block in missing:
            assembly.put(block, payloads[block])
        assert content(assembly.finish()) == FILES


def test_a_slot_with_another_file_of_the_same_size_does_not_undo_what_was_fetched(tmp_path):
    other = {**FILES, "recommend/model.onnx": NOISE[-(3 * BLOCK_BYTES + 9) :]}
    old, _ = assemble(tmp_path / "old", other)
    assemble(tmp_path / "new", FILES, stop_after=4)
    _, missing = assemble(tmp_path / "new", FILES, known=[old])
    assert len(missing) == 1


def test_a_complete_download_that_was_damaged_since_is_fetched_anew(tmp_path):
    directory, _ = assemble(tmp_path, FILES)
    (directory / CARD).write_bytes(b"[]")
    again, missing = assemble(tmp_path, FILES)
    assert content(again) == FILES
    assert len(missing) == 5


@pytest.mark.parametrize("path", [CARD, "recommend"])
def test_a_link_in_a_half_fetched_release_is_not_followed(tmp_path, path):
    manifest, payloads = release(FILES)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_bytes(b"mine")
    partial = tmp_path / "here" / f"{manifest.bundle_digest}.part"
    partial.mkdir(parents=True)
    (partial / path).symlink_to(outside / "mine" if path == CARD else outside)
    with closing(Assembly(manifest, folder=tmp_path / "here", cipher=CIPHER)) as assembly:
        put_all(assembly, payloads)
        assert content(assembly.finish()) == FILES
    assert content(outside) == {"mine": b"mine"}


def test_a_file_too_many_in_a_half_fetched_release_is_refused(tmp_path):
    manifest, payloads = release(FILES)
    with closing(Assembly(manifest, folder=tmp_path, cipher=CIPHER)) as assembly:
        (tmp_path / f"{manifest.bundle_digest}.part" / "more").write_bytes(b"x")
        put_all(assembly, payloads)
        with pytest.raises(BadSignatureError, match="more does not belong to this release"):
            assembly.finish()


def test_a_disk_that_is_too_small_is_said_before_anything_is_fetched(tmp_path):
    manifest, _ = release(FILES)
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(NoSpaceError, match=r"bytes are missing from this release, the disk has \d+ left"):
        Assembly(manifest, folder=tmp_path, cipher=CIPHER, keep_free=free)


def test_a_disk_that_fills_up_in_the_middle_is_said(tmp_path):
    manifest, payloads = release({CARD: b"{}", "model": NOISE})
    assembly = Assembly(manifest, folder=tmp_path, cipher=CIPHER)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * BLOCK_BYTES, hard))
    try:
        with pytest.raises(NoSpaceError, match="cannot store block"):
            put_all(assembly, payloads)
    finally:
        assembly.close()
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    directory, missing = assemble(tmp_path, {CARD: b"{}", "model": NOISE})  # room again: it goes on from there
    assert 0 < len(missing) < 6
    assert content(directory)["model"] == NOISE


def test_a_link_is_not_measured_as_a_file(tmp_path):
    (tmp_path / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(UntrustedReleaseError, match="neither a file nor a folder"):
        measure(tmp_path)
