"""The disk whose power is cut: what was synced stays, and of the rest anything may."""

import errno
import stat
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.power.disk import SECTOR, Disk, File, Folder, Lost

CONTENT = st.binary(min_size=1, max_size=3 * SECTOR)
OFFSET = st.integers(0, 4 * SECTOR)
WRITES = st.lists(st.tuples(OFFSET, CONTENT), max_size=8)
SIZES = st.integers(0, 5 * SECTOR)
SEEDS = st.integers(0, 2**32)


def make_disk(seed: int = 1) -> Disk:
    return Disk(Random(seed), now_ns=lambda: 1)


def make_file(disk: Disk, path: str) -> File:
    file = File(mode=stat.S_IFREG | 0o600)
    disk.make(path, file)
    return file


def make_folder(disk: Disk, path: str) -> Folder:
    folder = Folder(mode=stat.S_IFDIR | 0o700)
    disk.make(path, folder)
    return folder


def cut(disk: Disk) -> Lost:
    disk.cut()
    return disk.restore()


def names(disk: Disk) -> set[str]:
    return set(disk.root.entries)


def read(file: File) -> bytes:
    return bytes(file.content)


@given(WRITES, st.lists(st.tuples(SIZES, WRITES), max_size=3), SEEDS)
def test_what_was_synced_is_there_after_a_cut(
    first: list[tuple[int, bytes]], then: list[tuple[int, list[tuple[int, bytes]]]], seed: int
) -> None:
    disk = make_disk(seed)
    file = make_file(disk, "/file")
    for offset, data in first:
        disk.write(file, data, offset)
    for size, writes in then:
        disk.resize(file, size)
        for offset, data in writes:
            disk.write(file, data, offset)
    before = read(file)
    disk.sync(file, data_only=False)
    assert bytes(file.durable) == before
    assert cut(disk) == Lost(sectors=0, names=0)
    assert read(file) == before


@given(WRITES, WRITES, SIZES, WRITES, SEEDS)
def test_of_what_was_not_synced_each_sector_is_one_that_the_file_had(
    synced: list[tuple[int, bytes]],
    first: list[tuple[int, bytes]],
    size: int,
    then: list[tuple[int, bytes]],
    seed: int,
) -> None:
    disk = make_disk(seed)
    file = make_file(disk, "/file")
    for offset, data in synced:
        disk.write(file, data, offset)
    disk.sync(file, data_only=False)
    versions = [read(file)]
    for offset, data in first:
        disk.write(file, data, offset)
        versions.append(read(file))
    disk.resize(file, size)
    versions.append(read(file))
    for offset, data in then:
        disk.write(file, data, offset)
        versions.append(read(file))
    cut(disk)
    found = read(file)
    assert len(found) <= max(map(len, versions))
    for begin in range(0, len(found), SECTOR):
        sector = found[begin : begin + SECTOR]
        had = [one[begin : begin + SECTOR].ljust(SECTOR, b"\0")[: len(sector)] for one in versions]
        # A file may have grown without its data, and been cut off in the midst of a sector.
        ends = [len(one) - begin for one in versions if begin < len(one) < begin + SECTOR]
        mixed = [
            (one[:end] + other[end:])[: len(sector)] for end in ends for one in had for other in had
        ]
        assert sector in (*had, bytes(len(sector)), *mixed)


def test_a_page_may_be_torn_and_writes_may_be_reordered() -> None:
    kinds = set()
    for seed in range(200):
        disk = make_disk(seed)
        file = make_file(disk, "/file")
        disk.write(file, b"0" * 4 * SECTOR, 0)
        disk.sync(file, data_only=False)
        disk.write(file, b"1" * 2 * SECTOR, 0)
        disk.write(file, b"2" * 2 * SECTOR, 2 * SECTOR)
        cut(disk)
        kinds.add(bytes(file.content[::SECTOR]).decode())
    assert {"0000", "1122", "0022", "1100", "0122", "1000"} <= kinds


def test_what_nobody_syncs_is_written_back_in_part_while_others_write() -> None:
    kept = set()
    for seed in range(50):
        disk = make_disk(seed)
        file = make_file(disk, "/file")
        disk.sync_all()
        disk.write(file, b"1" * SECTOR, 0)
        for _ in range(20):
            disk.write(file, b"2", 10 * SECTOR)
        kept.add(bytes(file.durable[:SECTOR]) == b"1" * SECTOR)
    assert kept == {True, False}


NAMINGS: dict[str, Callable[[Disk, File], object]] = {
    "another is made": lambda disk, _: make_file(disk, "/other"),
    "it is renamed": lambda disk, _: disk.rename("/file", "/other"),
    "it is removed": lambda disk, _: disk.remove("/file"),
}


@pytest.mark.parametrize("happens", NAMINGS)
def test_data_alone_is_synced_without_names_that_were_changed_since(happens: str) -> None:
    kept = set()
    for seed in range(50):
        disk = make_disk(seed)
        file = make_file(disk, "/file")
        disk.write(file, b"content", 0)
        disk.sync(file, data_only=False)
        before = names(disk)
        NAMINGS[happens](disk, file)
        disk.write(file, b"CONTENT", 0)
        disk.sync(file, data_only=True)
        cut(disk)
        assert bytes(file.durable) == b"CONTENT"
        kept.add(names(disk) == before)
    assert kept == {True, False}


def test_a_file_is_synced_without_names_that_were_changed_after_it_was() -> None:
    kept = set()
    for seed in range(50):
        disk = make_disk(seed)
        file = make_file(disk, "/file")
        disk.sync_all()
        make_file(disk, "/other")
        disk.sync(file, data_only=False)
        cut(disk)
        kept.add("other" in names(disk))
    assert kept == {True, False}


def test_a_file_is_synced_with_names_that_were_changed_before_it_was() -> None:
    for seed in range(20):
        disk = make_disk(seed)
        file = make_file(disk, "/file")
        make_file(disk, "/other")
        disk.write(file, b"content", 0)
        disk.sync(file, data_only=False)
        cut(disk)
        assert names(disk) == {"file", "other"}


def test_a_name_that_is_new_after_a_cut_is_as_easily_lost_as_any() -> None:
    kept = set()
    for seed in range(50):
        disk = make_disk(seed)
        file = make_file(disk, "/file")
        disk.sync_all()
        for name in "abc":
            make_file(disk, f"/{name}")
        disk.write(file, b"content", 0)
        cut(disk)
        make_file(disk, "/after")
        disk.sync(file, data_only=False)
        cut(disk)
        kept.add("after" in names(disk))
    assert kept == {True, False}


def test_a_file_that_was_removed_is_there_for_whoever_has_it_open() -> None:
    disk = make_disk()
    file = make_file(disk, "/file")
    disk.write(file, b"content", 0)
    disk.remove("/file")
    assert disk.read(file, 10, 0) == b"content"
    with pytest.raises(OSError, match="/file"):
        disk.find("/file")


def test_a_new_file_has_its_name_once_its_data_is_synced() -> None:
    disk = make_disk()
    folder = make_folder(disk, "/folder")
    file = make_file(disk, "/folder/file")
    disk.write(file, b"content", 0)
    disk.sync(file, data_only=True)
    cut(disk)
    assert disk.find("/folder/file") is file
    assert disk.find("/folder") is folder
    assert read(file) == b"content"


def test_names_are_changed_in_their_order() -> None:
    seen = set()
    for seed in range(100):
        disk = make_disk(seed)
        for name in "abc":
            make_file(disk, f"/{name}")
        disk.rename("/a", "/d")
        disk.remove("/b")
        cut(disk)
        seen.add("".join(sorted(names(disk))))
    assert seen == {"", "a", "ab", "abc", "bcd", "cd"}


def test_a_rename_that_was_synced_replaces_and_one_that_was_not_leaves_one_or_the_other() -> None:
    seen = set()
    for seed in range(50):
        disk = make_disk(seed)
        old, new = make_file(disk, "/file"), make_file(disk, "/file.new")
        disk.sync_all()
        disk.rename("/file.new", "/file")
        cut(disk)
        seen.add((disk.find("/file") is new, "file.new" in names(disk)))
        assert disk.find("/file") in (old, new)
    assert seen == {(True, False), (False, True)}
    disk = make_disk()
    make_file(disk, "/file")
    new = make_file(disk, "/file.new")
    disk.rename("/file.new", "/file")
    disk.sync(disk.root, data_only=False)
    cut(disk)
    assert disk.find("/file") is new


def test_without_power_every_call_fails() -> None:
    disk = make_disk()
    file = make_file(disk, "/file")
    disk.cut()
    for call in (
        lambda: disk.find("/file"),
        lambda: disk.read(file, 1, 0),
        lambda: disk.write(file, b"1", 0),
        lambda: disk.resize(file, 1),
        lambda: disk.sync(file, data_only=False),
        lambda: make_file(disk, "/other"),
        lambda: disk.rename("/file", "/other"),
        lambda: disk.remove("/file"),
    ):
        with pytest.raises(OSError, match="the power is off") as caught:
            call()
        assert caught.value.errno == errno.EIO


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda disk: disk.find("/none"), errno.ENOENT),
        (lambda disk: disk.find("/file/below"), errno.ENOTDIR),
        (lambda disk: make_file(disk, "/file"), errno.EEXIST),
        (lambda disk: make_file(disk, "/file/below"), errno.ENOTDIR),
        (lambda disk: disk.remove("/folder"), errno.ENOTEMPTY),
        (lambda disk: disk.rename("/file", "/none/file"), errno.ENOENT),
    ],
)
def test_a_call_that_is_wrong_fails_as_on_any_disk(call: object, code: int) -> None:
    disk = make_disk()
    make_file(disk, "/file")
    make_folder(disk, "/folder")
    make_file(disk, "/folder/inside")
    assert callable(call)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is what counts
        call(disk)
    assert caught.value.errno == code
