"""`python3 dev.py ha` on a machine that cannot run it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_what_is_not_installed_is_said_in_one_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.high_availability"],
        cwd=ROOT,
        env=os.environ | {"PATH": str(ROOT / "nothing")},
        capture_output=True,
        text=True,
        check=False,
    )
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("dev.py ha: ")
    assert done.returncode == 1
