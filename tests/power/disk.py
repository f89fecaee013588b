"""A disk that forgets what was not synced, in memory.

It keeps two states: the current one, which programs see, and the durable one. A power cut makes
the durable state the current one, with a random part of what was not synced:

- Of a file, each changed sector of 512 bytes is the old one or the new one. So writes are
  reordered, and pages torn. A file may have grown without its data, and then has zeros there.
- Of the changes of names a random prefix survives: the journal of ext4 and XFS is in order.

What is made durable follows these two. `fsync` makes a file's content durable, and the journal up
to the last change of the file itself: its name, its times, its size. `fdatasync` makes the content
durable, and the journal up to the file's creation or last growth. `fsync` of a folder makes the
journal durable up to the last change of its names. What nobody syncs is written back in part now
and then, as the kernel does it.
"""

import errno
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

SECTOR = 512
SWITCH = ".power"
"""The file by which a mounted disk (tests.power.mount) is told to cut its power."""
_WRITTEN_BACK_ONCE_IN = 16
"""Writes, on average; then a random half of a file's changed sectors becomes durable."""


@dataclass(eq=False, slots=True)
class Node:
    """A file, a folder or a symbolic link. Its mode, owner and times are durable at once."""

    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    changed_at: int = 0
    """How many changes of names there were when it was last changed itself."""
    grown_at: int = 0
    """Likewise when it was made, or last grew."""


@dataclass(eq=False, slots=True)
class File(Node):
    """A file, as it is and as it would be after a power cut."""

    content: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    changed: set[int] = field(default_factory=set)
    """The numbers of the sectors that differ, or may."""

    @property
    def is_synced(self) -> bool:
        """Return whether nothing of it can be lost."""
        return not self.changed and len(self.content) == len(self.durable)

    def write(self, data: bytes, offset: int) -> None:
        """Write `data` at `offset`; a gap before it is of zeros."""
        if not data:
            return
        begin, end = min(offset, len(self.content)), offset + len(data)
        if offset > len(self.content):
            self.content.extend(bytes(offset - len(self.content)))
        self.content[offset:end] = data
        self.changed.update(range(begin // SECTOR, (end - 1) // SECTOR + 1))

    def resize(self, length: int) -> None:
        """Cut it off at `length` bytes, or extend it by zeros."""
        begin, end = min(length, len(self.content)), max(length, len(self.durable))
        if length <= len(self.content):
            del self.content[length:]
        else:
            self.content.extend(bytes(length - len(self.content)))
        self.changed.update(range(begin // SECTOR, end // SECTOR + 1))

    def sync(self) -> None:
        """Make its content durable."""
        self._fit(len(self.content))
        self._keep(self.changed)
        self.changed.clear()

    def write_back(self, random: Random) -> None:
        """Make a random half of its changed sectors durable."""
        kept = {sector for sector in sorted(self.changed) if random.random() < 0.5}
        self._keep(kept)
        self.changed -= kept

    def cut(self, random: Random) -> int:
        """Lose what is not durable, but for a random part; return how many sectors were lost."""
        if self.is_synced:
            return 0
        survives = random.choice((0.0, random.random(), 1.0))
        self._fit(random.choice((len(self.durable), len(self.content))))
        kept = {sector for sector in sorted(self.changed) if random.random() < survives}
        self._keep(kept)
        lost = len(self.changed) - len(kept)
        self.content = bytearray(self.durable)
        self.changed.clear()
        return lost

    def _fit(self, length: int) -> None:
        if length < len(self.durable):
            del self.durable[length:]
        else:
            self.durable.extend(bytes(length - len(self.durable)))

    def _keep(self, sectors: set[int]) -> None:
        """Make sectors durable, with the size that they need."""
        for sector in sectors:
            begin = sector * SECTOR
            data = self.content[begin : begin + SECTOR]
            if not data:
                continue
            if len(self.durable) < begin + len(data):
                self._fit(begin + len(data))
            self.durable[begin : begin + len(data)] = data


@dataclass(eq=False, slots=True)
class Folder(Node):
    """A folder, as it is and as it would be after a power cut."""

    entries: dict[str, Node] = field(default_factory=dict)
    durable: dict[str, Node] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Link(Node):
    """A symbolic link."""

    target: str = ""


@dataclass(frozen=True, slots=True)
class _Naming:
    """A change of names that happens wholly or not at all."""

    changes: tuple[tuple[Folder, str, Node | None], ...]
    """A folder, a name, and what it names from now on; None: nothing."""

    def apply(self, names_of: Callable[[Folder], dict[str, Node]]) -> None:
        for folder, name, node in self.changes:
            if node is None:
                names_of(folder).pop(name, None)
            else:
                names_of(folder)[name] = node


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """What a power cut took."""

    sectors: int
    """Of 512 bytes, which were written and are not there."""
    names: int
    """Changes of names that did not happen."""


class Disk:
    """Files and folders by their paths, and a switch. Every call may raise an `OSError`; without
    power each raises one (`EIO`)."""

    def __init__(self, random: Random, *, now_ns: Callable[[], int]) -> None:
        """`random` decides what is written back early, and what a power cut takes."""
        self._random = random
        self._now_ns = now_ns
        self._pending: list[_Naming] = []
        self._committed = 0
        """How many changes of names are durable; `_pending` has those after them."""
        self._has_power = True
        self.root = Folder(mode=stat.S_IFDIR | 0o755)

    def cut(self) -> None:
        """Cut the power: from now on every call fails."""
        self._has_power = False

    def restore(self) -> Lost:
        """Give power back, to what is left; return what was lost."""
        all_names = self._count
        surviving = self._random.randint(0, len(self._pending))
        lost_names = len(self._pending) - surviving
        self._commit(self._committed + surviving)
        self._pending.clear()
        self._committed = all_names  # the numbers of those that were lost are not used again
        lost_sectors = _restore(self.root, self._random)
        self._has_power = True
        return Lost(sectors=lost_sectors, names=lost_names)

    def sync_all(self) -> None:
        """Make everything durable."""
        self._commit(self._count)
        for node in walk(self.root):
            if isinstance(node, File):
                node.sync()

    def find(self, path: str) -> Node:
        """Return what is at a path from the root."""
        self._check_power()
        node: Node = self.root
        for name in filter(None, path.split("/")):
            if not isinstance(node, Folder):
                raise OSError(errno.ENOTDIR, path)
            if name not in node.entries:
                raise OSError(errno.ENOENT, path)
            node = node.entries[name]
        return node

    def make(self, path: str, node: Node) -> None:
        """Name a new node."""
        folder, name = self._place(path)
        if name in folder.entries:
            raise OSError(errno.EEXIST, path)
        node.mtime_ns = self._now_ns()
        self._change(_Naming(((folder, name, node),)), node)
        node.grown_at = self._count

    def remove(self, path: str) -> None:
        """Remove a name. An open file stays until it is closed."""
        folder, name = self._place(path)
        node = self.find(path)
        if isinstance(node, Folder) and node.entries:
            raise OSError(errno.ENOTEMPTY, path)
        self._change(_Naming(((folder, name, None),)), node)

    def rename(self, old: str, new: str) -> None:
        """Rename; what has the new name already is replaced."""
        node, (source, old_name), (target, name) = self.find(old), *map(self._place, (old, new))
        if node is target.entries.get(name):
            return
        replaced = target.entries.get(name)
        if isinstance(replaced, Folder) and replaced.entries:
            raise OSError(errno.ENOTEMPTY, new)
        self._change(_Naming(((source, old_name, None), (target, name, node))), node)

    def read(self, file: File, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset` on."""
        self._check_power()
        return bytes(file.content[offset : offset + size])

    def write(self, file: File, data: bytes, offset: int) -> None:
        """Write; now and then something of the file is written back."""
        self._check_power()
        length = len(file.content)
        file.write(data, offset)
        self._note(file, grew=len(file.content) > length)
        if self._random.randrange(_WRITTEN_BACK_ONCE_IN) == 0:
            file.write_back(self._random)

    def resize(self, file: File, length: int) -> None:
        """Change a file's size."""
        self._check_power()
        file.resize(length)
        self._note(file, grew=True)

    def sync(self, node: Node, *, data_only: bool) -> None:
        """Make a file durable, and names; `data_only` as `fdatasync` does."""
        self._check_power()
        if isinstance(node, File):
            node.sync()
        self._commit(node.grown_at if data_only else node.changed_at)

    @property
    def _count(self) -> int:
        return self._committed + len(self._pending)

    def _commit(self, number: int) -> None:
        """Make the first `number` changes of names durable."""
        first = max(number - self._committed, 0)
        for naming in self._pending[:first]:
            naming.apply(lambda folder: folder.durable)
        del self._pending[:first]
        self._committed += first

    def _change(self, naming: _Naming, *nodes: Node) -> None:
        naming.apply(lambda folder: folder.entries)
        self._pending.append(naming)
        for node in (*nodes, *(folder for folder, _, _ in naming.changes)):
            node.changed_at = self._count

    def _note(self, file: File, *, grew: bool) -> None:
        """Note that a file was changed, which its times and its size tell the journal."""
        file.mtime_ns = self._now_ns()
        file.changed_at = self._count
        if grew:
            file.grown_at = self._count

    def _place(self, path: str) -> tuple[Folder, str]:
        above, _, name = path.rpartition("/")
        folder = self.find(above)
        if not isinstance(folder, Folder):
            raise OSError(errno.ENOTDIR, path)
        return folder, name

    def _check_power(self) -> None:
        if not self._has_power:
            raise OSError(errno.EIO, "the power is off")


def walk(folder: Folder) -> list[Node]:
    """Return a folder and all that is below it."""
    nodes: list[Node] = [folder]
    for node in folder.entries.values():
        nodes += walk(node) if isinstance(node, Folder) else [node]
    return nodes


def _restore(folder: Folder, random: Random) -> int:
    """Make the durable state of a folder the current one; return how many sectors were lost."""
    folder.entries = dict(folder.durable)
    lost = 0
    for _, node in sorted(folder.entries.items()):
        if isinstance(node, Folder):
            lost += _restore(node, random)
        elif isinstance(node, File):
            lost += node.cut(random)
    return lost
