"""What the bodies of failing events have in common, and those of others have not."""

from typing import Any

from ingest.store.failures.comparison import LONGEST_VALUE, MOST_LEAVES, common, leaves


def order(country: str, **more: Any) -> dict[str, Any]:
    return {"event": "order.created", "data": {"shipping_country": country, "total": 5} | more}


def told(failing: list[Any], others: list[Any]) -> list[tuple[str, str | None]]:
    return [(field.path, field.value) for field in common(failing, others)]


def test_a_value_that_most_of_them_have_and_few_others_is_told() -> None:
    failing = [*[order("SA", id=number) for number in range(48)], order("AE"), order("AE")]
    others = [*[order("SA")] * 6, *[order("AE")] * 44]
    (field,) = common(failing, others)
    assert (field.path, field.value) == ("data.shipping_country", "SA")
    assert (field.events, field.examined, field.others_share) == (48, 50, 0.12)


def test_what_others_have_too_is_not_told() -> None:
    assert told([order("SA")] * 5, [order("SA")] * 5) == []
    assert told([order("SA")] * 3 + [order("AE")] * 2, [order("AE")] * 5) == []


def test_what_is_missing_is_told_once_with_what_it_was_in() -> None:
    address = {"city": "Jeddah", "zip": "1", "geo": {"lat": 1}}
    failing = [order("SA"), order("SA", address=None), order("SA")]
    assert told(failing, [order("SA", address=address)] * 4) == [("data.address", None)]
    partly = {"city": "Jeddah", "geo": {"lat": 1}}
    assert told([order("SA", address=partly)] * 3, [order("SA", address=address)] * 4) == [
        ("data.address.zip", None)
    ]


def test_what_stands_anywhere_in_a_list_is_told() -> None:
    failing = [order("SA", items=[{"sku": number}, {"sku": "GIFT"}]) for number in range(4)]
    others = [order("SA", items=[{"sku": number}]) for number in range(4)]
    assert told(failing, others) == [("data.items[].sku", "GIFT")]


def test_of_two_events_or_without_others_nothing_is_told() -> None:
    assert told([order("SA")] * 2, [order("AE")] * 9) == []
    assert told([order("SA")] * 9, []) == []


def test_numbers_and_truths_are_spelled_as_a_search_takes_them() -> None:
    found = {value for _, value in leaves({"a": 1, "b": True, "c": None, "d": "x" * 999})}
    assert found == {"1", "true"}
    assert len("x" * LONGEST_VALUE) == LONGEST_VALUE


def test_no_more_than_so_many_values_of_a_body_are_looked_at() -> None:
    assert len(list(leaves({str(number): number for number in range(9_999)}))) == MOST_LEAVES
    deep: Any = 1
    for _ in range(500):
        deep = {"a": deep}
    assert len(list(leaves(deep))) == MOST_LEAVES


def test_a_body_that_is_no_object_has_no_fields() -> None:
    assert told([1, 2, 3], [4, 5, 6]) == []
    assert told([[1]] * 3, [[2]] * 3) == [("[]", "1")]
