"""What breaking something is."""

from collections.abc import Callable
from random import Random

from tests.faults.world import World

Strike = Callable[[World, Random], None]
"""Breaks something, and mends it before it returns."""


class NotStruck(Exception):
    """Nothing was broken, since what was to be broken was not there."""
