"""The pages of the API say what its document says."""

from ingest.console.api import operations
from ingest.console.ui import api_reference

REFERENCE = api_reference.read(operations.document("1"))


def names(text: str) -> list[str]:
    return [one.id for section in REFERENCE.matching(text) for one in section.operations]


def test_every_operation_is_shown() -> None:
    assert sorted(names("")) == sorted(endpoint.name for endpoint in operations.ENDPOINTS)


def test_operations_are_found_by_each_word() -> None:
    assert names("POST pause") == ["pause_bulk_action", "pause_processor"]
    assert names("nothing is called so") == []


def test_a_command_calls_an_operation_with_what_it_cannot_do_without() -> None:
    found = REFERENCE.operation("get_event_by_sender_id")
    assert found is not None
    assert api_reference.command(found, base="http://localhost:8001", has_token=False) == (
        "curl -sS 'http://localhost:8001/api/v1/events/by-sender-id"
        "?source=shop&event_id=order.created%3A789'"
    )
    pause = REFERENCE.operation("pause_processor")
    assert pause is not None
    assert api_reference.command(pause, base="https://hooks.example", has_token=True) == (
        "curl -sS https://hooks.example/api/v1/processors/orders/pause \\\n"
        '  -H "Authorization: Bearer $INGEST_TOKEN" \\\n'
        '  -H "Idempotency-Key: $(uuidgen)" \\\n'
        "  --json '{\n"
        '  "reason": "the CRM is back"\n'
        "}'"
    )


def test_the_schemas_of_an_answer_are_shown_with_those_that_they_name() -> None:
    found = REFERENCE.operation("list_bulk_actions")
    assert found is not None
    shapes = {shape.name: shape for shape in found.shapes}
    assert {"BulkActionList", "BulkAction", "BulkActionWork", "EventFilter"} <= shapes.keys()
    kinds = {field.name: (field.kind, field.schema) for field in shapes["BulkActionList"].fields}
    assert kinds["items"] == ("list of BulkAction", "BulkAction")
    assert kinds["next_cursor"] == ("string or null", None)
    assert REFERENCE.operation("no_such_operation") is None


def test_what_stands_in_backticks_is_code_and_nothing_is_markup() -> None:
    assert api_reference.coded("`a` <b>") == '<code class="mono">a</code> &lt;b&gt;'
