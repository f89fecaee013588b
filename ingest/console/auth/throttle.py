"""How often somebody may try to log in."""

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping


class Throttle:
    """Counts tries by key over a sliding window, in bounded memory."""

    def __init__(self, *, window_s: float, max_keys: int, clock: Callable[[], float]) -> None:
        """`clock` gives seconds."""
        self._window_s = window_s
        self._max_keys = max_keys
        self._clock = clock
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, limits: Mapping[str, int]) -> int:
        """Count a try for every key, `limits` by key, and return 0. When one has none left, count
        nothing and return the seconds to wait.

        A try is counted before its outcome is known: many at once would all find room.
        """
        now = self._clock()
        wait_s = max(self._wait_s(key, limit, now) for key, limit in limits.items())
        if wait_s > 0:
            return math.ceil(wait_s)
        for key in limits:
            self._tries.setdefault(key, deque()).append(now)
            self._tries.move_to_end(key)
        while len(self._tries) > self._max_keys:
            self._tries.popitem(last=False)
        return 0

    def give_back(self, limits: Mapping[str, int]) -> None:
        """The newest try of each key succeeded: it does not count. The failures before it do, or
        somebody with an account could reset the count of their guesses at another's."""
        for key in limits:
            tries = self._tries.get(key)
            if tries:
                tries.pop()
            if not tries:
                self._tries.pop(key, None)

    def _wait_s(self, key: str, limit: int, now: float) -> float:
        tries = self._tries.get(key)
        if tries is None:
            return 0
        while tries and tries[0] <= now - self._window_s:
            tries.popleft()
        return tries[0] + self._window_s - now if len(tries) >= limit else 0
