"""The breakages of tests/mutations.py fit the code. Whether they are caught takes longer."""

import re
from pathlib import Path

import pytest

from tests.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.what for mutation in MUTATIONS])
def test_what_is_broken_is_there_once_and_so_is_the_test_that_notices(mutation: Mutation) -> None:
    assert (ROOT / mutation.file).read_text().count(mutation.old) == 1
    assert mutation.new != mutation.old
    file, _, test = mutation.caught_by.partition("::")
    function = re.escape(test.split("[")[0])
    tests = (ROOT / "tests" / file).read_text()
    assert not test or len(re.findall(rf"^def {function}\(", tests, re.MULTILINE)) == 1
