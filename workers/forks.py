"""A fork that ends when its parent does."""

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1
_LOOK_S = 0.25


def end_with(parent: int) -> None:
    """Let this fork end when its `parent` is killed, and get a terminal's Ctrl-C through it
    only."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    else:
        # No kernel tells of its end there (macOS).
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def wait_for_end(parent: int) -> None:
    """Return once the process that forked this one, its `parent`, has ended."""
    pause = threading.Event()  # never set; time.sleep fails under libfaketime
    while os.getppid() == parent:
        pause.wait(_LOOK_S)


def _end_after(parent: int) -> None:
    wait_for_end(parent)
    os.kill(os.getpid(), signal.SIGTERM)
