"""The place that an error was raised in, by which failures are grouped: `shop.orders:total`.

It has no line number and no folder, so that it stays the same in the next release.
"""

import inspect
import sysconfig
import traceback
from collections.abc import Callable
from functools import cache
from types import FrameType

from ingest.text import storable

LIMIT = 300
_OURS = ("ingest", "workers")


def of_error(error: BaseException, function: Callable[..., object]) -> str | None:
    """Return the module and the function of the deepest frame that is no library's.

    Return None if the error has no traceback. If all frames are of libraries, the deepest counts.

    Args:
        error: what was raised.
        function: the processor's. Its package is no library, wherever it is installed.
    """
    first = error.__traceback__
    if first is None:
        return None
    frames = [frame for frame, _ in traceback.walk_tb(first.tb_next or first)]
    package = _package(inspect.unwrap(function).__module__)
    own = [frame for frame in frames if not _is_library(frame, package)]
    return _spell((own or frames)[-1])


def _is_library(frame: FrameType, package: str) -> bool:
    top = _package(frame.f_globals.get("__name__", ""))
    if top == package:
        return False
    path = frame.f_code.co_filename
    return top in _OURS or path.startswith(("<", *_library_folders()))


def _package(module: str) -> str:
    return module.partition(".")[0]


@cache
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple({paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def _spell(frame: FrameType) -> str:
    module = frame.f_globals.get("__name__", "?")
    return storable(f"{module}:{frame.f_code.co_qualname}", limit=LIMIT)
