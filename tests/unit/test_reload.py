"""`up --reload`: what is saved is tried, then run."""

import json
import os
from pathlib import Path

import pytest

from ingest.declared import NotImported, read
from ingest.local.reload import ImportTrial, Reloader
from tests.support.waiting import until

FOLDER = Path("/project")


class Trial:
    """A process that has ended, or runs."""

    def __init__(self, code: int | None = None, output: str = "", errors: str = "") -> None:
        self.code, self.output, self.errors = code, output, errors
        self.endings = 0

    def poll(self) -> int | None:
        return self.code

    def written(self) -> tuple[str, str]:
        return self.output, self.errors

    def end(self) -> None:
        self.endings += 1


class World:
    """What a reloader acts on."""

    def __init__(self, *trials: Trial) -> None:
        self.saved: set[str] = set()
        self.trials = list(trials)
        self.said: list[str] = []
        self.restarts = 0
        self.unhandled: dict[str, int] = {}
        self.reloader = Reloader(
            take=self._take,
            begin_trial=lambda: self.trials.pop(0),
            restart=self._restart,
            unhandled=lambda: self.unhandled,
            say=self.said.append,
            folder=FOLDER,
            replay_command="ingest replay",
        )

    def _take(self) -> set[str]:
        saved, self.saved = self.saved, set()
        return saved

    def _restart(self) -> None:
        self.restarts += 1

    def save(self, *names: str) -> None:
        self.saved |= {str(FOLDER / name) for name in names}


def imported(*types: str) -> Trial:
    return Trial(
        0, "printed by a module\n" + json.dumps([{"name": t, "types": [t]} for t in types])
    )


BROKEN = Trial(1, "", "noise\ningest: The processors in shop cannot be imported: shop.py, line 3\n")


def test_the_first_trial_starts_the_workers() -> None:
    world = World(imported("a"))
    world.reloader.look()
    assert world.restarts == 1
    assert world.said == ["the workers start with 1 processor"]


def test_nothing_happens_while_nothing_is_saved() -> None:
    world = World(imported("a"))
    for _ in range(3):
        world.reloader.look()
    assert world.restarts == 1


def test_a_save_is_tried_and_its_files_are_named() -> None:
    world = World(imported("a"), imported("a", "b"))
    world.reloader.look()
    world.save("shop.py", "app/crm.py")
    world.reloader.look()
    assert world.restarts == 2
    assert world.said[-1] == "app/crm.py, shop.py: the workers start with 2 processors"


def test_what_cannot_be_imported_is_told_and_the_next_save_heals_it() -> None:
    world = World(BROKEN, imported("a"))
    world.reloader.look()
    assert world.restarts == 0
    sentence = "The processors in shop cannot be imported: shop.py, line 3"
    assert world.said == [f"{sentence}. The workers wait for the next save."]
    world.save("shop.py")
    world.reloader.look()
    world.reloader.look()
    assert world.restarts == 1


def test_a_save_during_a_trial_takes_its_place_even_if_that_would_never_end() -> None:
    endless = Trial()
    world = World(endless, imported("a"))
    world.reloader.look()
    assert endless.endings == 0
    world.save("shop.py")
    world.reloader.look()
    assert endless.endings == 1
    assert (world.restarts, world.said) == (1, ["shop.py: the workers start with 1 processor"])


def test_the_trial_that_runs_is_ended_with_everything() -> None:
    endless = Trial()
    World(endless).reloader.close()
    assert endless.endings == 1


def test_a_module_may_print_more_than_a_pipe_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loud.py").write_text("print('x' * 1_000_000)")
    monkeypatch.chdir(tmp_path)
    trial = ImportTrial(os.environ | {"INGEST_PROCESSORS": "loud"})
    until(lambda: trial.poll() is not None)
    assert trial.poll() == 0
    assert read(0, *trial.written())


def test_many_files_are_counted() -> None:
    world = World(imported("a"), imported("a"))
    world.reloader.look()
    world.save(*(f"{letter}.py" for letter in "abcde"))
    world.reloader.look()
    world.reloader.look()
    assert world.said[-1].startswith("a.py, b.py, c.py and 2 more: ")


def test_unhandled_events_are_offered_once_they_have_a_processor() -> None:
    world = World(imported("order.created"), imported("order.created", "refund.*"))
    world.unhandled = {"refund.made": 3, "refund.failed": 1, "order.lost": 9}
    world.reloader.look()
    assert len(world.said) == 1
    world.save("shop.py")
    world.reloader.look()
    world.reloader.look()
    command = "ingest replay --state unhandled --type"
    assert world.said[-2:] == [
        f"1 unhandled refund.failed event has a processor now: {command} refund.failed",
        f"3 unhandled refund.made events have a processor now: {command} refund.made",
    ]


def test_a_module_that_ends_the_process_is_told() -> None:
    with pytest.raises(NotImported, match="end the process"):
        read(0, "", "")
