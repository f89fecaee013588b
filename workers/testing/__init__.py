"""Tests of processors: what a test's author imports. The fixtures are in `workers.testing.plugin`,
which pytest loads by itself."""

from workers.testing.attempts import Attempt
from workers.testing.faults import Fault, under_faults
from workers.testing.pipeline import NotDeclared, Pipeline

__all__ = ["Attempt", "Fault", "NotDeclared", "Pipeline", "under_faults"]
