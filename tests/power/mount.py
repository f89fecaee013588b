"""`python -m tests.power.mount FOLDER SEED`: mount a disk whose power can be cut.

The file `.power` in FOLDER is the switch. Writing `cut` to it cuts the power: every call fails from
then on. Writing `restore` brings back what is left; reading it then says what was lost, as JSON.
Writing `sync` makes everything durable. Writing `slow 0.02` lets each sync take 0.02 s longer.

One thread serves all calls, so a cut falls between two of them. The kernel caches nothing.
"""

import dataclasses
import errno
import itertools
import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from random import Random
from typing import Any

import mfusepy

from tests.power.disk import SWITCH, Disk, File, Folder, Link, Node

_SWITCH_PATH = f"/{SWITCH}"
_SWITCH_HANDLE = 0


class _Calls(mfusepy.Operations):
    """What the kernel asks for. Open files are known by their handle: they may have no name."""

    use_ns = True
    flag_nopath = True
    flag_nullpath_ok = True

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._open: dict[int, Node] = {}
        self._handles = itertools.count(_SWITCH_HANDLE + 1)
        self._said = b""
        self._sync_s = 0.0

    def getattr(self, path: str | None, fh: int | None = None) -> dict[str, Any]:
        if path == _SWITCH_PATH or fh == _SWITCH_HANDLE:
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": len(self._said)}
        # Without power too: the way to the switch leads through the root.
        node = self._disk.root if path == "/" else self._node(path, fh)
        size = len(node.content) if isinstance(node, File) else 0
        return {
            "st_mode": node.mode,
            "st_uid": node.uid,
            "st_gid": node.gid,
            "st_nlink": 2 if isinstance(node, Folder) else 1,
            "st_size": size,
            "st_blocks": -(-size // 512),
            "st_atime": node.mtime_ns,
            "st_mtime": node.mtime_ns,
            "st_ctime": node.mtime_ns,
        }

    def readdir(self, path: str | None, fh: int) -> Iterator[str]:
        folder = self._node(path, fh)
        assert isinstance(folder, Folder)
        yield from (".", "..", *folder.entries)

    def opendir(self, path: str) -> int:
        return self._handle(self._disk.find(path))

    def open(self, path: str, flags: int) -> int:
        if path == _SWITCH_PATH:
            return _SWITCH_HANDLE
        node = self._disk.find(path)
        if flags & os.O_TRUNC and isinstance(node, File):
            self._disk.resize(node, 0)
        return self._handle(node)

    def create(self, path: str, mode: int, fi: object = None) -> int:
        uid, gid = self._caller()
        file = File(mode=stat.S_IFREG | stat.S_IMODE(mode), uid=uid, gid=gid)
        self._disk.make(path, file)
        return self._handle(file)

    def read(self, path: str | None, size: int, offset: int, fh: int) -> bytes:
        if fh == _SWITCH_HANDLE:
            return self._said[offset : offset + size]
        return self._disk.read(self._file(fh), size, offset)

    def write(self, path: str | None, data: bytes, offset: int, fh: int) -> int:
        if fh == _SWITCH_HANDLE:
            self._switch(data.decode().strip())
        else:
            self._disk.write(self._file(fh), data, offset)
        return len(data)

    def truncate(self, path: str | None, length: int, fh: int | None = None) -> int:
        if path != _SWITCH_PATH and fh != _SWITCH_HANDLE:
            node = self._node(path, fh)
            assert isinstance(node, File)
            self._disk.resize(node, length)
        return 0

    def fsync(self, path: str | None, datasync: int, fh: int) -> int:
        if fh != _SWITCH_HANDLE:
            time.sleep(self._sync_s)  # every other call waits too, as for a disk that is busy
            self._disk.sync(self._node(None, fh), data_only=bool(datasync))
        return 0

    def fsyncdir(self, path: str | None, datasync: int, fh: int) -> int:
        return self.fsync(path, datasync, fh)

    def release(self, path: str | None, fh: int) -> int:
        self._open.pop(fh, None)
        return 0

    def releasedir(self, path: str | None, fh: int) -> int:
        return self.release(path, fh)

    def mkdir(self, path: str, mode: int) -> int:
        uid, gid = self._caller()
        self._disk.make(path, Folder(mode=stat.S_IFDIR | stat.S_IMODE(mode), uid=uid, gid=gid))
        return 0

    def symlink(self, target: str, source: str) -> int:
        uid, gid = self._caller()
        link = Link(mode=stat.S_IFLNK | 0o777, uid=uid, gid=gid, target=source)
        self._disk.make(target, link)
        return 0

    def readlink(self, path: str) -> str:
        node = self._disk.find(path)
        assert isinstance(node, Link)
        return node.target

    def unlink(self, path: str) -> int:
        self._disk.remove(path)
        return 0

    def rmdir(self, path: str) -> int:
        self._disk.remove(path)
        return 0

    def rename(self, old: str, new: str) -> int:
        self._disk.rename(old, new)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        node = self._disk.find(path)
        node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        node = self._disk.find(path)
        node.uid, node.gid = uid, gid
        return 0

    def utimens(self, path: str | None, times: tuple[int, int] | None = None) -> int:
        if path is not None:
            self._disk.find(path).mtime_ns = time.time_ns() if times is None else times[1]
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        blocks = 1 << 24
        return {"f_bsize": 4096, "f_frsize": 4096, "f_namemax": 255} | dict.fromkeys(
            ("f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail"), blocks
        )

    def _switch(self, command: str) -> None:
        match command.split():
            case ["cut"]:
                self._disk.cut()
                self._open.clear()
            case ["slow", seconds]:
                self._sync_s = float(seconds)
            case ["restore"]:
                self._said = json.dumps(dataclasses.asdict(self._disk.restore())).encode()
            case ["sync"]:
                self._disk.sync_all()
            case _:
                raise OSError(errno.EINVAL, command)

    def _node(self, path: str | None, fh: int | None) -> Node:
        if fh is None:
            assert path is not None
            return self._disk.find(path)
        if fh not in self._open:  # opened before the power was cut
            raise OSError(errno.EIO, "the power was cut")
        return self._open[fh]

    def _file(self, fh: int) -> File:
        node = self._node(None, fh)
        if not isinstance(node, File):
            raise OSError(errno.EISDIR, "a folder")
        return node

    def _handle(self, node: Node) -> int:
        handle = next(self._handles)
        self._open[handle] = node
        return handle

    @staticmethod
    def _caller() -> tuple[int, int]:
        uid, gid, _ = mfusepy.fuse_get_context()
        return uid, gid


class _Mount(mfusepy.FUSE):
    def truncate_fuse_3(self, path: bytes | None, length: int, fip: Any) -> int:
        """Tell the open file too: it may have no name any more."""
        handle = fip.contents.fh if fip else None
        truncated: int = self.operations.truncate(path and path.decode(), length, handle)
        return truncated


def main(folder: str, seed: str) -> None:
    """Serve until the folder is unmounted."""
    disk = Disk(Random(int(seed)), now_ns=time.time_ns)
    _Mount(
        _Calls(disk),
        folder,
        foreground=True,
        nothreads=True,
        allow_other=True,
        default_permissions=True,
        direct_io=True,
        hard_remove=True,
        attr_timeout=0,
        entry_timeout=0,
        fsname="power",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
