"""`ingest up --reload`: the workers run the code that was saved last.

Saved code is imported by a process of its own first. What cannot be imported stops nothing: the
workers go on with the code before, and the next save is tried again.
"""

import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from watchfiles import PythonFilter, watch

from ingest import declared, misspelt_types
from ingest.declared import DeclaredProcessor, NotImported

_MOST_NAMED = 3
"""Files that a message names."""


class Trial(Protocol):
    """A process that imports the processors."""

    def poll(self) -> int | None:
        """Return its exit code; None: it runs."""

    def written(self) -> tuple[str, str]:
        """Return what it wrote to its standard output and error, once it has ended."""

    def end(self) -> None:
        """End it, whatever it does."""


class Changes(threading.Thread):
    """Watches the Python files of a folder; those in hidden folders, environments and caches do not
    count."""

    def __init__(self, folder: Path) -> None:
        super().__init__(name="reload", daemon=True)
        self._folder = folder
        self._lock = threading.Lock()
        self._paths: set[str] = set()

    def run(self) -> None:
        """Watch until the process ends."""
        try:
            self._watch()
        except OSError:  # the kernel watches no further folders for this user
            self._watch(by_polling=True)

    def _watch(self, *, by_polling: bool = False) -> None:
        # None: watchfiles decides. It polls where the kernel tells of no changes.
        polls = by_polling or None
        for changes in watch(self._folder, watch_filter=PythonFilter(), force_polling=polls):
            with self._lock:
                self._paths |= {path for _, path in changes}

    def take(self) -> set[str]:
        """Return which files have changed since the last call."""
        with self._lock:
            paths, self._paths = self._paths, set()
        return paths


class Reloader:
    """Decides, each second, whether the workers are to be started anew."""

    def __init__(
        self,
        *,
        take: Callable[[], set[str]],
        begin_trial: Callable[[], Trial],
        restart: Callable[[], None],
        unhandled: Callable[[], Mapping[str, int]],
        say: Callable[[str], None],
        folder: Path,
        replay_command: str,
    ) -> None:
        """Put it together.

        Args:
            take: which files have changed since it was called last.
            begin_trial: starts a process that imports the processors.
            restart: starts the workers, instead of those that run.
            unhandled: how many events there are that no processor handled, by type.
            say: shows a message.
            folder: where the files are.
            replay_command: what a user types to replay: `ingest replay`.
        """
        self._take = take
        self._begin_trial = begin_trial
        self._restart = restart
        self._unhandled = unhandled
        self._say = say
        self._folder = folder
        self._replay_command = replay_command
        self._trial: Trial | None = begin_trial()
        self._known: frozenset[str] = frozenset()
        self._told = ""

    def look(self) -> None:
        """Try what was saved; when it can be imported, restart the workers. A save during a trial
        begins another: an import that never ends is healed so, too."""
        if saved := self._take():
            self.close()
            self._told = _named(saved, self._folder)
            self._trial = self._begin_trial()
        if self._trial is None or (code := self._trial.poll()) is None:
            return
        trial, self._trial = self._trial, None
        try:
            processors = declared.read(code, *trial.written())
        except NotImported as problem:
            said = str(problem)
            self._say(
                f"{said if said.endswith('.') else said + '.'} The workers wait for the next save."
            )
            return
        self._restart()
        count = f"{len(processors)} {'processor' if len(processors) == 1 else 'processors'}"
        self._say(f"{self._told + ': ' if self._told else ''}the workers start with {count}")
        for sentence in misspelt_types.sentences(processors):
            self._say(sentence)
        self._offer(processors)

    def close(self) -> None:
        """End the trial that runs."""
        if self._trial is not None:
            self._trial.end()
            self._trial = None

    def _offer(self, processors: Sequence[DeclaredProcessor]) -> None:
        """Say which events that no processor handled have one now."""
        patterns = frozenset(pattern for processor in processors for pattern in processor.types)
        new, self._known = patterns - self._known, patterns
        if not new:
            return
        for event_type, count in sorted(self._unhandled().items()):
            if any(fnmatchcase(event_type, pattern) for pattern in new):
                events = "event has" if count == 1 else "events have"
                self._say(
                    f"{count:,} unhandled {event_type} {events} a processor now:"
                    f" {self._replay_command} --state unhandled --type {event_type}"
                )


class ImportTrial:
    """A process that imports the processors as a worker with an environment would."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Start it. It writes to files: a module may print more than a pipe holds."""
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - read when the process has ended
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            declared.COMMAND,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._errors,
            start_new_session=True,
        )

    def poll(self) -> int | None:
        """Return its exit code; None: it runs."""
        return self._process.poll()

    def written(self) -> tuple[str, str]:
        """Return what it wrote to its standard output and error, once it has ended."""
        texts = []
        for file in (self._output, self._errors):
            with file:
                file.seek(0)
                texts.append(file.read().decode("utf-8", "replace"))
        return texts[0], texts[1]

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()
        self._output.close()
        self._errors.close()


def _named(paths: set[str], folder: Path) -> str:
    names = sorted(
        str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) else path
        for path in paths
    )
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
