"""Limits the number of login attempts."""

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping


class Throttle:
    """Counts attempts by key over a sliding window, in bounded memory."""

    def __init__(self, *, window_s: float, max_keys: int, clock: Callable[[], float]) -> None:
        """`clock` returns seconds."""
        self._window_s = window_s
        self._max_keys = max_keys
        self._clock = clock
        self._attempts: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, limits: Mapping[str, int]) -> int:
        """Count an attempt for every key of `limits`, and return 0.

        If a key has reached its limit, count nothing and return the seconds to wait. An attempt is
        counted before its outcome is known, so that simultaneous attempts are limited too.
        """
        now = self._clock()
        wait_s = max(self._wait_s(key, limit, now) for key, limit in limits.items())
        if wait_s > 0:
            return math.ceil(wait_s)
        for key in limits:
            self._attempts.setdefault(key, deque()).append(now)
            self._attempts.move_to_end(key)
        while len(self._attempts) > self._max_keys:
            self._attempts.popitem(last=False)
        return 0

    def give_back(self, limits: Mapping[str, int]) -> None:
        """Remove the newest attempt of each key, because it succeeded.

        Failed attempts still count. Otherwise somebody with an account could log in to reset the
        count of their guesses at another account.
        """
        for key in limits:
            attempts = self._attempts.get(key)
            if attempts:
                attempts.pop()
            if not attempts:
                self._attempts.pop(key, None)

    def _wait_s(self, key: str, limit: int, now: float) -> float:
        attempts = self._attempts.get(key)
        if attempts is None:
            return 0
        while attempts and attempts[0] <= now - self._window_s:
            attempts.popleft()
        return attempts[0] + self._window_s - now if len(attempts) >= limit else 0
