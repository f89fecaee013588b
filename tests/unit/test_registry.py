import functools
import itertools
import math
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ingest import settings
from ingest.errors import SettingsError
from workers import periodic, processor, registry
from workers.registry import Declaration, Registry


@pytest.fixture(autouse=True)
def _only_what_the_test_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "declared", [])


def declared() -> list[Declaration]:
    return registry.declared


def test_a_declaration_takes_its_defaults_from_the_settings() -> None:
    @processor("order.created")
    def notify(event: Any, db: Any) -> None: ...

    (found,) = Registry(
        declared(), settings.load(max_attempts=3, attempt_timeout_s=7, retry_max_delay_s=99)
    )
    assert found.types == ("order.created",)
    assert found.name.endswith("notify")
    assert (found.max_attempts, found.timeout_s, found.rules.cap_s) == (3, 7, 99)
    assert found.queue == "events"
    assert not found.batch


def test_what_is_given_wins_over_the_settings() -> None:
    @processor("a", "b", name="n", batch=True, queue="crm", max_attempts=1, timeout_s=0.5)
    def many(events: Any, db: Any) -> None: ...

    (found,) = Registry(declared(), settings.load())
    assert (found.name, found.types, found.batch) == ("n", ("a", "b"), True)
    assert (found.queue, found.max_attempts, found.timeout_s) == ("crm", 1, 0.5)


def test_a_type_may_have_several_processors() -> None:
    @processor("a", name="one", queue="slow")
    def one(event: Any, db: Any) -> None: ...

    @processor("a", name="two")
    def two(event: Any, db: Any) -> None: ...

    found = Registry(declared(), settings.load())
    assert [(each.type, each.processor) for each in found.new_jobs()] == [
        ("a", "one"),
        ("a", "two"),
    ]
    assert found.queues == ("events", "replay", "slow")


def test_two_processors_of_one_name_are_refused() -> None:
    @processor("a", name="same")
    def one(event: Any, db: Any) -> None: ...

    @processor("b", name="same")
    def two(event: Any, db: Any) -> None: ...

    with pytest.raises(SettingsError, match="same") as refused:
        Registry(declared(), settings.load())
    for function in (one, two):
        line = function.__code__.co_firstlineno
        assert f"{__file__}, line {line}" in str(refused.value)


def test_two_of_one_name_that_have_no_code_of_their_own_are_refused_too() -> None:
    """A line is told where there is one."""

    class Callable:
        __module__ = __qualname__ = "callable"

        def __call__(self, event: Any, db: Any) -> None: ...

    for _ in range(2):
        processor("a", name="same")(Callable())
    with pytest.raises(SettingsError, match="Two processors are named same"):
        Registry(declared(), settings.load())


async def asynchronous(event: Any, db: Any) -> None: ...


def lonely(event: Any) -> None: ...


def crowded(event: Any, db: Any, more: Any) -> None: ...


@pytest.mark.parametrize("function", [lonely, crowded])
def test_a_function_that_cannot_be_called_so_is_refused_where_it_is_declared(
    function: Any,
) -> None:
    with pytest.raises(TypeError, match=function.__name__):
        processor("a")(function)


class Called:
    async def __call__(self, event: Any, db: Any) -> None: ...


@pytest.mark.parametrize("function", [asynchronous, functools.partial(asynchronous), Called()])
def test_what_is_awaited_when_it_is_called_is_async(
    function: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "declared", [])
    processor("a", name="a")(function)
    processor("a", name="b", batch=True)(function)
    declared = [(one.is_async, one.in_flight) for one in registry.declared]
    assert declared == [(True, registry.IN_FLIGHT), (True, 1)]


@pytest.mark.parametrize(
    ("function", "options", "said"),
    [
        (asynchronous, {"threads": 2}, "in_flight=, and no threads"),
        (asynchronous, {"in_flight": 0}, "in_flight must be above 0"),
        (asynchronous, {"in_flight": 1_001}, "in_flight must be at most 1000"),
        (asynchronous, {"in_flight": 2, "batch": True}, "takes a list or has in_flight=, not both"),
        (lambda event, db: None, {"in_flight": 2}, "threads="),
    ],
)
def test_options_that_make_no_sense_together_are_refused(
    function: Any, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        processor("a", **options)(function)


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_attempts": 0},
        {"max_attempts": 1_001},
        {"timeout_s": 0},
        {"retry_base_s": -1},
        {"queue": "replay"},
    ],
)
def test_rules_that_make_no_sense_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))[:5]):
        processor("a", **arguments)


WHOLE = ("threads", "in_flight", "max_attempts")
SECONDS = ("timeout_s", "retry_base_s", "retry_max_delay_s")
NO_NUMBERS = (True, "5", [5], Decimal(5))
OUT_OF_RANGE = (0, -1, 10**9 + 1, 10**30)
NOT_FINITE = (math.nan, math.inf, -math.inf)


@pytest.mark.parametrize(
    ("option", "value", "kind", "said"),
    [
        *itertools.product(
            WHOLE, (*NO_NUMBERS, *NOT_FINITE, 2.5), [TypeError], ["is a whole number"]
        ),
        *itertools.product(WHOLE, OUT_OF_RANGE, [ValueError], ["must be (above 0|at most)"]),
        *itertools.product(SECONDS, NO_NUMBERS, [TypeError], ["is a number of seconds"]),
        *itertools.product(
            SECONDS,
            (*OUT_OF_RANGE, *NOT_FINITE),
            [ValueError],
            ["must be above 0 and at most 1,000,000,000"],
        ),
    ],
)
def test_what_is_no_number_of_use_is_refused_where_it_is_declared(
    option: str, value: Any, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=f"^{option} {said}"):
        processor("a", **{option: value})
    if option not in ("threads", "in_flight"):
        with pytest.raises(kind, match=f"^{option} {said}"):
            periodic("* * * * *", **{option: value})(lambda event, db: None)


def test_the_longest_times_that_the_settings_take_can_be_declared() -> None:
    longest: dict[str, Any] = dict.fromkeys(SECONDS, settings.MOST_SECONDS)
    processor("a", **longest)(lambda event, db: None)
    (found,) = Registry(declared(), settings.load(attempt_timeout_s=settings.MOST_SECONDS))
    assert (found.timeout_s, found.rules.cap_s) == (settings.MOST_SECONDS,) * 2


def test_a_processor_without_a_type_is_refused() -> None:
    with pytest.raises(TypeError, match="types"):
        processor()
    with pytest.raises(TypeError, match="types"):
        processor(lonely)  # type: ignore[arg-type]


TWICE = """
from workers import processor
@processor('a', name='x')
def f(event, db): pass
@processor('a', name='x')
def g(event, db): pass
"""


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nothing_of_that_name", r"broken\.py, line 1: ModuleNotFoundError: .*nothing_of"),
        ("\n\n1 / 0", r"broken\.py, line 3: ZeroDivisionError"),
        ("def f(:\n  pass", r"broken\.py, line 1: SyntaxError"),
        ("import sys\nsys.exit('no licence')", r"broken\.py, line 2: SystemExit: no licence"),
        (
            "from workers import processor\n@processor('a', in_flight=9)\ndef f(event, db): pass",
            r"broken\.py, line 2: ValueError: in_flight is for `async def`",
        ),
        ("\nraise KeyboardInterrupt", r"broken\.py, line 2: KeyboardInterrupt\Z"),
        ("\nraise KeyboardInterrupt('now')", r"broken\.py, line 2: KeyboardInterrupt: now\Z"),
        ("raise SystemExit", r"broken\.py, line 1: SystemExit\Z"),
        ("exit(3)", r"broken\.py, line 1: SystemExit: 3\Z"),
        ("raise GeneratorExit", r"broken\.py, line 1: GeneratorExit\Z"),
        (
            TWICE,
            r"Two processors are named x: .* in .*broken\.py, line 3 and in .*broken\.py, line 5\.",
        ),
        ("raise KeyError('first\\nsecond')", r"broken\.py, line 1: KeyError"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_file_and_line(
    source: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "broken.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    with pytest.raises(SettingsError, match=said) as refused:
        registry.load(settings.load(processors=("broken",), read_model=False))
    assert "\n" not in str(refused.value)


def test_a_module_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"nowhere cannot be imported: ModuleNotFoundError"):
        registry.load(settings.load(processors=("nowhere",), read_model=False))


def test_a_module_in_the_working_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_processors.py").write_text(
        "from workers import processor\n@processor('order.created')\ndef notify(event, db): pass\n"
    )
    monkeypatch.chdir(tmp_path)
    found = registry.load(settings.load(processors=("my_processors",), read_model=False))
    assert [each.name for each in found] == ["my_processors.notify"]
