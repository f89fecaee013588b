"""The protocol with one of its rules broken: something must follow, or nothing needs the rule."""

from dataclasses import fields, replace

from tests.model.explore import Explored, explore
from tests.model.protocol import RULES, Rules, start

_OF_THE_MODEL = ("max_attempts", "faults_end")
BREAKABLE = tuple(field.name for field in fields(Rules) if field.name not in _OF_THE_MODEL)
"""The names of the rules."""
_MOST_FAULTS = 2


def without(rule: str) -> Explored:
    """Return what is found without that rule, with the fewest faults that it takes."""
    rules = replace(RULES, **{rule: False})
    for faults in range(_MOST_FAULTS + 1):
        explored = explore(start(events=1, faults=faults), rules)
        if explored.wrong is not None:
            break
    return explored
