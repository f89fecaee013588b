"""The queues of a worker, in shares with processes of their own, so that a slow queue does not take
the processes that another needs.

Celery's pool takes from all of its queues by turns, so each share is a Celery worker of its own: a
fork of the process that has imported the processors, which shares its memory. That process ends
with them, hands signals on and takes all of them down when one ends unasked."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest import logs, queues
from workers import forks, liveness

_LOOK_S = 0.25
_BEATS_LATE_S = 3 * liveness.INTERVAL_S

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Queues that are worked on by processes of their own."""

    queues: tuple[str, ...]
    processes: int

    @property
    def name(self) -> str:
        """Return what tells it from the others."""
        return "+".join(self.queues)


def plan(
    consumed: Sequence[str], allotted: Mapping[tuple[str, ...], int], *, processes: int
) -> list[Share]:
    """Part the queues that a worker consumes.

    Args:
        consumed: all of them.
        allotted: the processes of groups of queues that somebody has named.
        processes: of the live queue, or of all where that is not consumed, unless named.

    Who names nothing has one share, unless a processor has a queue of its own: then that and the
    replays, which may be of a slow processor too, have one process beside those of the live queue.
    """
    named = [
        Share(queues=members, processes=number)
        for group, number in allotted.items()
        if (members := tuple(queue for queue in group if queue in consumed))
    ]
    taken = {queue for share in named for queue in share.queues}
    rest = tuple(queue for queue in consumed if queue not in taken)
    if not named and set(rest) <= {queues.LIVE, queues.REPLAY}:
        return [Share(queues=rest, processes=processes)]
    if queues.LIVE not in consumed:
        return named + ([Share(queues=rest, processes=processes)] if rest else [])
    live = [] if queues.LIVE in taken else [Share(queues=(queues.LIVE,), processes=processes)]
    others = tuple(queue for queue in rest if queue != queues.LIVE)
    return live + named + ([Share(queues=others, processes=1)] if others else [])


def run(
    shares: Sequence[Share],
    work: Callable[[Share, Path | None], int],
    *,
    heartbeat_file: Path | None,
) -> int:
    """Work on all shares until SIGTERM; returns the exit code. Main thread only.

    Args:
        shares: at least one.
        work: works on one, touching the file as long as it is well; returns its exit code.
        heartbeat_file: touched as long as all of them are well.
    """
    if len(shares) == 1:
        return work(shares[0], heartbeat_file)
    parent = os.getpid()
    children: dict[int, Share] = {}
    for share in shares:
        file = _file_of(share, heartbeat_file)
        if file is not None:
            file.unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            forks.end_with(parent)
            return work(share, file)
        children[pid] = share
    return _Parent(children, heartbeat_file).watch()


def _file_of(share: Share, heartbeat_file: Path | None) -> Path | None:
    if heartbeat_file is None:
        return None
    return heartbeat_file.with_name(f"{heartbeat_file.name}.{share.name}")


class _Parent:
    """Waits for the forks."""

    def __init__(self, children: Mapping[int, Share], heartbeat_file: Path | None) -> None:
        self._children = dict(children)
        self._files = [
            file
            for share in children.values()
            if (file := _file_of(share, heartbeat_file)) is not None
        ]
        self._heartbeat_file = heartbeat_file
        self._is_ending = False
        self._code = 0

    def watch(self) -> int:
        """Wait until all have ended; returns the first exit code that is not 0."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, lambda number, _frame: self._hand_on(signal.Signals(number)))
        pause = threading.Event()  # never set; time.sleep fails under libfaketime
        while self._children:
            self._reap()
            self._beat()
            pause.wait(_LOOK_S)
        for file in self._files:
            file.unlink(missing_ok=True)
        return self._code

    def _hand_on(self, number: signal.Signals) -> None:
        self._is_ending = True
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _reap(self) -> None:
        for pid, share in list(self._children.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            del self._children[pid]
            code = os.waitstatus_to_exitcode(status)
            self._code = self._code or (code if code >= 0 else 128 - code)
            if not self._is_ending:
                log.error("share_ended", queues=share.queues, code=code)
                self._code = self._code or 1
                self._hand_on(signal.SIGTERM)

    def _beat(self) -> None:
        now = time.time()
        with contextlib.suppress(FileNotFoundError):
            if all(now - file.stat().st_mtime < _BEATS_LATE_S for file in self._files):
                liveness.beat(self._heartbeat_file)
