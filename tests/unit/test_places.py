"""The place of an error: the deepest frame that is no library's, without its line."""

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from workers import places


def caught(function: Callable[[], object]) -> BaseException:
    """The error that a call of a processor's function ends with, as a worker catches it."""
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError


def fails() -> None:
    deeper()


def deeper() -> None:
    json.loads("{")


def test_the_place_is_the_deepest_function_that_is_no_librarys() -> None:
    assert places.of_error(caught(fails), fails) == f"{__name__}:deeper"


def test_a_function_inside_another_is_told_from_others() -> None:
    def inner() -> None:
        raise ValueError

    name = "test_a_function_inside_another_is_told_from_others.<locals>.inner"
    assert places.of_error(caught(inner), inner) == f"{__name__}:{name}"


def test_an_error_without_a_traceback_has_no_place() -> None:
    assert places.of_error(ValueError("no"), fails) is None


def test_an_application_that_is_installed_is_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = load("shop.orders", "import json\ndef total():\n    json.loads('{')\n", monkeypatch)
    assert places.of_error(caught(shop.total), shop.total) == "shop.orders:total"


def test_if_all_frames_are_of_libraries_the_deepest_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vendor = load("vendor.client", "def call():\n    raise OSError\n", monkeypatch)
    assert places.of_error(caught(vendor.call), fails) == "vendor.client:call"


def test_a_long_name_is_cut() -> None:
    module = types.ModuleType("m" * 400)
    exec("def call():\n    raise OSError\n", module.__dict__)  # noqa: S102 - ours
    spelled = places.of_error(caught(module.call), module.call)
    assert spelled is not None
    assert len(spelled) == places.LIMIT


def load(name: str, code: str, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module as if it were installed among the libraries."""
    libraries = Path(json.__file__).parents[1] / "site-packages"
    module = types.ModuleType(name)
    path = libraries / f"{name.replace('.', '/')}.py"
    exec(compile(code, str(path), "exec"), module.__dict__)  # noqa: S102 - ours
    monkeypatch.setitem(sys.modules, name, module)
    return module
