"""The model of an event's data that a processor's annotation names: `Event[OrderCreated]`.

Pydantic reads the data, so a model is a dataclass, a `TypedDict` or a class of pydantic's own.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass, replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError

from workers.control import Discard
from workers.event import Event

_MOST_DIGITS = 4_000
"""Of a number, as of an `int` that a body holds (ingest.strict_json)."""
_MOST_PROBLEMS = 3
"""How many fields the error of a mismatch names."""


class BadModel(Exception):
    """An annotation names no type that data can be read as."""


class DataMismatch(Discard):
    """An event's data is not what the processor's annotation says. No retry can help: the job is
    dead, and waits for a replay after the model has been mended."""


class Model:
    """Reads the data of events as one type."""

    def __init__(self, data_type: Any) -> None:
        """Read data as a `data_type`.

        Raises:
            BadModel: pydantic cannot.
        """
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(data_type)
            self._adapter.rebuild(raise_errors=True)  # a name of its fields may be unknown
        except Exception as error:  # of a pattern of a field, of an annotation in quotes …
            name = getattr(data_type, "__qualname__", data_type)
            why = (str(error).strip() or type(error).__name__).splitlines()[0].removesuffix(".")
            raise BadModel(
                f"data cannot be read as {name}, which is to be a dataclass, a TypedDict or a"
                f" pydantic model ({why})"
            ) from error

    def read(self, event: Event) -> Event[Any]:
        """Return `event` with its data as the type.

        Raises:
            DataMismatch: the data is another; the message names the fields.
        """
        if _has_an_endless_number(event.data):
            raise DataMismatch(f"data: a number has more than {_MOST_DIGITS:,} digits")
        try:
            return replace(event, data=self._adapter.validate_python(event.data))
        except ValidationError as error:
            raise DataMismatch(_sentence(error)) from None


def model_of(function: Callable[..., object], *, batch: bool) -> Model | None:
    """Return the model that the first parameter of a processor is annotated with; None: none is.

    Args:
        function: the processor's function.
        batch: whether it takes a list of events: `list[Event[OrderCreated]]`.

    Raises:
        BadModel: the annotation cannot be resolved, names no model, or is not that of an event.
    """
    annotation = _first_annotation(function)
    _check_is_event(annotation, batch=batch)
    if batch and get_args(annotation):
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is not Event:
        return None
    (data_type,) = get_args(annotation)
    is_plain = data_type is Any or (get_origin(data_type) or data_type) is dict
    return None if is_plain or isinstance(data_type, TypeVar) else Model(data_type)


def _has_an_endless_number(data: object) -> bool:
    """Return whether a number is too large or too small to be written out: `1e999999999999`.

    Pydantic makes a whole number of such a one if a field is an `int`: that of `1e3000000` took
    2.2 s, and larger ones do not end.
    """
    left = [data]
    while left:
        value = left.pop()
        if isinstance(value, Mapping):
            left += value.values()
        elif isinstance(value, list):
            left += value
        elif isinstance(value, Decimal) and abs(value.adjusted()) > _MOST_DIGITS:
            return True
    return False


def _check_is_event(annotation: Any, *, batch: bool) -> None:
    """Look at the annotation of a first parameter.

    Raises:
        BadModel: no event can be what it says.
    """
    of_class = get_origin(annotation) or annotation
    if not inspect.isclass(of_class) or of_class is Event:
        return
    name = getattr(annotation, "__qualname__", str(annotation))
    if _is_connection(of_class):
        raise BadModel("its first parameter is to be the event, and its second the connection")
    if of_class is list and not batch:
        raise BadModel("it is called with one event; batch=True hands it lists")
    if is_dataclass(of_class) or issubclass(of_class, BaseModel) or _is_typed_dict(of_class):
        raise BadModel(f"its first parameter is to be the event: annotate it with Event[{name}]")


def _is_connection(of_class: type) -> bool:
    """Return whether it is one of SQLAlchemy's. By name: its asynchronous half takes 0.1 s to
    import, which only async processors need."""
    return any(
        of.__module__.startswith("sqlalchemy.") and of.__name__ in ("Connection", "AsyncConnection")
        for of in of_class.__mro__
    )


def _is_typed_dict(of_class: type) -> bool:
    """Return whether it is one, of `typing` or of `typing_extensions`."""
    return issubclass(of_class, dict) and hasattr(of_class, "__required_keys__")


def _first_annotation(function: Callable[..., object]) -> Any:
    """Return what the first parameter is annotated with. Only this one is resolved: what the others
    name may be imported for type checkers alone."""
    first = next(iter(inspect.signature(function).parameters.values()), None)
    if first is None or first.annotation is inspect.Parameter.empty:
        return None
    plain = inspect.unwrap(function)
    try:
        hints = get_type_hints(
            SimpleNamespace(__annotations__={"event": first.annotation}),
            globalns=getattr(plain, "__globals__", {}),
        )
    except Exception as error:  # whatever evaluating a user's annotation does
        if "Event[" not in str(first.annotation):
            return None
        raise BadModel(
            f"its annotation {first.annotation} cannot be resolved ({error}); import what it names"
            " outside `if TYPE_CHECKING`, and define it at the top of a module"
        ) from error
    return hints["event"]


def _sentence(error: ValidationError) -> str:
    """Return which fields are wrong and how; without their values, which may be personal."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    named = [
        f"{'.'.join(str(part) for part in problem['loc']) or 'data'}: {problem['msg']}"
        for problem in problems[:_MOST_PROBLEMS]
    ]
    more = len(problems) - len(named)
    return "; ".join(named) + (f"; and {more} more" if more else "")
