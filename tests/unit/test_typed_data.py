"""Processors get the data that their annotation names."""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pydantic
import pytest
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from ingest import settings
from ingest.errors import SettingsError
from workers import Event, processor, registry
from workers.registry import Processor, Registry
from workers.typed_data import BadModel, DataMismatch, Model, model_of


@dataclass(frozen=True)
class Customer:
    name: str


@dataclass(frozen=True)
class Order:
    order_id: int
    total: Decimal
    at: datetime | None = None
    customer: Customer | None = None


class OrderFields(TypedDict):
    order_id: int


class PydanticOrder(pydantic.BaseModel):
    order_id: int


def event(**data: Any) -> Event:
    return Event(
        id="1",
        source="s",
        event_id="e",
        type="order.created",
        occurred_at=None,
        received_at=datetime(2026, 1, 1, tzinfo=UTC),
        data=data,
        body=b"",
        attempt=1,
        idempotency_key="k",
    )


def read(function: Callable[..., object], *, batch: bool = False, **data: Any) -> Any:
    model = model_of(function, batch=batch)
    assert model is not None
    return model.read(event(**data)).data


def test_data_becomes_the_dataclass_of_the_annotation() -> None:
    def take(event: Event[Order], db: Any) -> None: ...

    given: dict[str, Any] = {"order_id": 7, "total": Decimal("12.50"), "more": 1}
    stamp = "2026-01-02T03:04:05Z"
    assert read(take, **given, at=stamp, customer={"name": "نورة"}) == Order(
        order_id=7,
        total=Decimal("12.50"),
        at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        customer=Customer(name="نورة"),
    )


def test_typed_dicts_and_pydantic_models_do_too() -> None:
    def take_fields(event: Event[OrderFields], db: Any) -> None: ...
    def take_model(event: Event[PydanticOrder], db: Any) -> None: ...

    assert read(take_fields, order_id=7) == {"order_id": 7}
    assert read(take_model, order_id=7) == PydanticOrder(order_id=7)


def test_of_a_batch_the_annotation_of_its_events_counts() -> None:
    def take(events: list[Event[Order]], db: Any) -> None: ...

    assert read(take, batch=True, order_id=7, total=1) == Order(order_id=7, total=Decimal(1))


def test_a_number_with_a_fraction_may_be_a_float() -> None:
    @dataclass
    class Weight:
        kilograms: float

    def take(event: Event[Weight], db: Any) -> None: ...

    # Decorated functions have their annotations as objects here, so a local class is found.
    assert read(take, kilograms=Decimal("0.5")) == Weight(kilograms=0.5)


def test_events_without_a_model_are_left_as_they_are() -> None:
    def bare(event: Any, db: Any) -> None: ...
    def plain(event: Event, db: Any) -> None: ...
    def whole(event: Event[dict[str, Any]], db: Any) -> None: ...
    def anything(event: Event[Any], db: Any) -> None: ...
    def unknown(event: "Missing", db: "Missing") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert [model_of(each, batch=False) for each in (bare, plain, whole, anything)] == [None] * 4
    assert model_of(unknown, batch=False) is None
    assert model_of(plain, batch=True) is None


def test_what_only_type_checkers_import_does_not_matter_beside_the_event() -> None:
    def take(event: "Event[Order]", db: "Missing") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert read(take, order_id=7, total=1) == Order(order_id=7, total=Decimal(1))


def test_a_mismatch_names_the_fields_and_no_value() -> None:
    model = Model(Order)
    with pytest.raises(DataMismatch) as caught:
        model.read(event(order_id="966500000000x", customer={"name": None}))
    assert str(caught.value).startswith("order_id: ")
    assert "total: Field required" in str(caught.value)
    assert "customer.name: " in str(caught.value)
    assert "9665" not in str(caught.value)


def test_of_many_wrong_fields_the_first_are_named() -> None:
    many = pydantic.create_model("Many", **{f"f{n}": (int, ...) for n in range(9)})  # type: ignore[call-overload]
    with pytest.raises(DataMismatch, match=r"f2: Field required; and 6 more"):
        Model(many).read(event())


def test_an_annotation_that_cannot_be_resolved_stops_the_worker_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "declared", [])

    @processor("order.created")
    def take(event: "Event[Ordr]", db: Any) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(SettingsError, match=r"test_typed_data.py, line \d+.*Ordr") as caught:
        Registry(registry.declared, settings.load())
    assert caught.value.reason == "bad_model"


@pytest.mark.parametrize("kind", ["@dataclass\nclass", "class"])
def test_a_model_with_a_field_of_an_unknown_type_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As linters leave it who move an import below TYPE_CHECKING."""
    base = "" if kind.startswith("@") else "(BaseModel)"
    (tmp_path / "own_models.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from pydantic import BaseModel\n"
        f"{kind} Order{base}:\n    total: Decimal\n",
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_models", raising=False)
    with pytest.raises(BadModel, match="Decimal"):
        Model(importlib.import_module("own_models").Order)
    monkeypatch.delitem(sys.modules, "own_models")


def test_a_type_that_data_cannot_be_read_as_is_refused() -> None:
    class Plain:
        """Neither a dataclass nor a model."""

    def take(event: Event[Plain], db: Any) -> None: ...

    with pytest.raises(BadModel, match="dataclass"):
        model_of(take, batch=False)


def test_a_field_that_pydantic_cannot_make_is_refused_with_a_sentence() -> None:
    @dataclass
    class Odd:
        number: Annotated[str, pydantic.Field(pattern="(")]

    def take(event: Event[Odd], db: Any) -> None: ...

    with pytest.raises(BadModel, match="data cannot be read as"):
        model_of(take, batch=False)


@pytest.mark.parametrize("exponent", [-999_999_999_999, 999_999_999_999])
def test_a_number_that_nobody_can_write_out_is_a_mismatch(exponent: int) -> None:
    def take(event: Event[Order], db: Any) -> None: ...

    number = Decimal(f"1e{exponent}")
    with pytest.raises(DataMismatch, match="digits"):
        read(take, order_id=number)
    with pytest.raises(DataMismatch, match="digits"):
        read(take, lines=[{"a": number}])


@pytest.mark.parametrize(
    ("annotation", "sentence"),
    [
        (Order, r"to be the event: annotate it with Event\[Order\]"),
        (OrderFields, r"Event\[OrderFields\]"),
        (PydanticOrder, r"Event\[PydanticOrder\]"),
        ("Order", r"Event\[Order\]"),
        (Connection, "first parameter is to be the event, and its second the connection"),
        (AsyncConnection, "first parameter is to be the event"),
        (list[Event], "called with one event; batch=True"),
    ],
)
def test_a_first_parameter_that_no_event_can_be_is_refused(annotation: Any, sentence: str) -> None:
    def take(event: Any, db: Any) -> None: ...

    take.__annotations__["event"] = annotation
    with pytest.raises(BadModel, match=sentence):
        model_of(take, batch=False)


def test_the_registry_keeps_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "declared", [])

    @processor("order.created")
    def take(event: Event[Order], db: Any) -> None: ...

    (found,) = Registry(registry.declared, settings.load())
    assert isinstance(found, Processor)
    assert found.model is not None
