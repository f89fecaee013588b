"""Models are written from what data looks like, whatever its sender names things."""

import sys
from decimal import Decimal
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from ingest import event_models

TYPE = "order.created"


def written(*data: dict[str, Any], event_type: str = TYPE, source: str = "shop") -> str:
    observed = event_models.observe((source, event_type, each) for each in data)
    return event_models.module(observed)


def loaded(text: str) -> ModuleType:
    module = ModuleType("models_of_a_test")
    sys.modules[module.__name__] = module  # dataclasses look for their module
    try:
        exec(compile(text, "models", "exec"), vars(module))  # noqa: S102 - the text is what is tested
    finally:
        del sys.modules[module.__name__]
    return module


def test_an_event_type_becomes_a_dataclass_with_its_fields() -> None:
    text = written(
        {"order_id": 7, "total": 1, "note": "a", "paid": True},
        {"order_id": 8, "total": Decimal("1.5"), "note": None, "paid": False},
    )
    assert "class OrderCreated:" in text
    assert '"""order.created of shop, as in 2 events."""' in text
    assert "    order_id: int\n" in text
    assert "    total: Decimal\n" in text
    assert "    note: str | None\n" in text
    assert "    paid: bool\n" in text
    loaded(text)


def test_a_field_that_some_events_lack_is_optional() -> None:
    assert "    coupon: str | None = None\n" in written({"coupon": "A"}, {})


def test_objects_and_lists_have_classes_of_their_own() -> None:
    text = written({"customer": {"name": "N"}, "lines": [{"sku": 1}, {"sku": 2, "gift": True}]})
    assert "class OrderCreatedCustomer:" in text
    assert "    customer: OrderCreatedCustomer\n" in text
    assert "    lines: list[OrderCreatedLines]\n" in text
    assert "    gift: bool | None = None\n" in text


def test_an_object_whose_keys_are_data_is_a_mapping() -> None:
    text = written({"by_customer": {"+966500000001": 1, "+966500000002": 2}})
    assert "    by_customer: dict[str, Any]\n" in text
    assert "9665" not in text


def test_the_same_type_of_two_senders_makes_two_classes() -> None:
    text = event_models.module(
        event_models.observe([("a-shop", TYPE, {"a": 1}), ("b", TYPE, {"b": 1})])
    )
    assert "class OrderCreated:" in text
    assert "class BOrderCreated:" in text


def test_a_field_may_have_the_name_of_a_type() -> None:
    data = {"list": ["a"], "str": "b", "int": 1, "bool": True, "dict": {"a": 1}, "Any": None}
    text = written(data, {"last": 1})  # so each field is optional, and has a value in the class
    made = TypeAdapter(loaded(text).OrderCreated).validate_python(data)
    assert (made.list_, made.str_, made.int_, made.bool_, made.Any_) == (["a"], "b", 1, True, None)


@pytest.mark.parametrize("event_type", ["none", "true", "any", "decimal", "field"])
def test_an_event_type_may_have_the_name_of_what_is_imported(event_type: str) -> None:
    data = {"total": Decimal("1.5"), "e-mail": "a", "anything": None}
    module = loaded(written(data, event_type=event_type))
    (model,) = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
    ]
    assert TypeAdapter(model).validate_python(data).total == Decimal("1.5")


def test_a_key_that_is_no_name_has_an_alias() -> None:
    data = {"from": "a", "e-mail": "b", "e.mail": "c", "2nd": "d", "_id": 5}
    text = written(data)
    model = loaded(text).OrderCreated
    made = TypeAdapter(model).validate_python(data)
    assert (made.from_, made.e_mail, made.e_mail_, made.field_2nd, made.id) == tuple(data.values())


@pytest.mark.parametrize(
    "name", ['"""\nimport os\n"""', "a\\", "x'''", "ü", "", "class", "1.2", "a\nb", "日本"]
)
def test_no_name_of_a_senders_reaches_the_module_as_code(name: str) -> None:
    module = loaded(written({name: 1, "inner": {name: [{name: 1}]}}, event_type=name, source=name))
    assert not hasattr(module, "os")


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.decimals(allow_nan=False, allow_infinity=False)
            | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(max_size=8), inner, max_size=3)
            ),
            max_leaves=8,
        ),
        max_size=5,
    )
)
def test_whatever_the_data_its_model_reads_it(data: dict[str, Any]) -> None:
    module = loaded(written(data))
    TypeAdapter(module.OrderCreated).validate_python(data)
