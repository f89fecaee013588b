"""The flight recorder: which job a process is running, in memory that outlives the process.

A job that kills its process must spend an attempt, and its neighbours in the batch must not. The
kernel keeps a shared file mapping when the process dies, however it dies; the next worker process
on this machine reads it and knows the one that ran. What else the process held, the jobs' rows
say. Without the record (the machine is gone) leases end, and what comes back runs apart."""

import fcntl
import mmap
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ingest.store.address import Database
from ingest.store.pipeline.jobs import Lease

_RUNNING = struct.Struct("<qq")  # job, attempt; zeros: none
_SUFFIX = ".flight"


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashRecord:
    """What a dead process left."""

    path: Path
    worker: str
    """The name that it claimed jobs under."""
    running: Lease | None
    """What it was running when it died; None: nothing, it was between jobs."""

    def clear(self) -> None:
        """Forget it: it has been recorded in the database."""
        self.path.unlink(missing_ok=True)


class CrashRecorder:
    """One process's record. Its file is locked as long as the process lives."""

    def __init__(self, folder: Path, worker: str) -> None:
        """Record under the name `worker`, which no process had before and none will have again."""
        self._path = folder / f"{os.getpid()}-{os.urandom(4).hex()}{_SUFFIX}"
        aside = self._path.with_suffix(".new")
        record = bytes(_RUNNING.size) + worker.encode()
        descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, record)
        self._map = mmap.mmap(descriptor, len(record))
        self._descriptor = descriptor  # holds the lock until the process ends
        aside.rename(self._path)

    def mark_running(self, job: Lease) -> None:
        """Record that `job` runs now."""
        _RUNNING.pack_into(self._map, 0, job.id, job.attempt)

    def mark_idle(self) -> None:
        """Record that no job runs, or none that could be named."""
        _RUNNING.pack_into(self._map, 0, 0, 0)

    def close(self) -> None:
        """Remove the record: the process ends as it should."""
        self._path.unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        """Leave the record as it is and give up its lock, as the kernel does for a dead process."""
        self._map.close()
        os.close(self._descriptor)


def folder_for(database: Database, parent: Path | None = None) -> Path:
    """Return the folder of a database's records on this machine, made if need be."""
    digest = sha256(
        repr((sorted(database.parameters.items()), database.schema)).encode()
    ).hexdigest()[:12]
    folder = (parent or Path(tempfile.gettempdir())) / f"ingest-flights-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    return folder


@contextmanager
def crash_records(folder: Path) -> Iterator[list[CrashRecord]]:
    """Return the records of dead processes; each is seen by one caller at a time."""
    records: list[CrashRecord] = []
    descriptors: list[int] = []
    try:
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue
            descriptors.append(descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # its process lives, or somebody else is reading it
            if path.exists() and (record := _read(path)) is not None:
                records.append(record)
        yield records
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _read(path: Path) -> CrashRecord | None:
    """Return the record of a dead process. What a power cut left of one is removed, and None
    returned: it is not synced, so it may be empty or zeros. The leases of its jobs end."""
    record = path.read_bytes()
    worker = record[_RUNNING.size :].decode(errors="surrogateescape")
    if not worker.isprintable() or not worker:
        path.unlink()
        return None
    job, attempt = _RUNNING.unpack_from(record)
    return CrashRecord(
        path=path, worker=worker, running=Lease(id=job, attempt=attempt) if job else None
    )
