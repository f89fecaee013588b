"""What the API's document promises to whoever reads it, or makes a client of it.

A new operation fails here until it is described: each message says what to do.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import make_dataclass
from typing import Any, cast
from unittest.mock import Mock

import pytest
from pydantic import TypeAdapter
from starlette.routing import Route

from ingest.console.api import docstrings, operations, schemas
from ingest.console.api.endpoints import Endpoint
from ingest.console.api.lists import Listing
from ingest.console.pages import routes
from ingest.console.pages.site import Site
from ingest.console.ui import paths
from ingest.store.reports.failures import FailureGroup

DOCUMENT = operations.document("1")
SCHEMAS: dict[str, dict[str, Any]] = DOCUMENT["components"]["schemas"]
BY_NAME: dict[str, dict[str, Any]] = {
    operation["operationId"]: operation
    for by_method in DOCUMENT["paths"].values()
    for operation in by_method.values()
}
EACH = pytest.mark.parametrize("endpoint", operations.ENDPOINTS, ids=lambda each: each.name)
READS = re.compile(r"list_\w+|get_\w+|export_\w+")
CHANGES = re.compile(
    r"(acknowledge|assign|begin|cancel|close|continue|delete|discard|erase|find|mute|note|order|pause"
    r"|probe|rename|reopen|replay|resend|resolve|resume|retry|run|save|send|set|test|unacknowledge)_\w+"
)


def properties() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, schema in SCHEMAS.items():
        for member, of in schema.get("properties", {}).items():
            yield f"{name}.{member}", of


def test_every_property_says_what_it_means() -> None:
    silent = [name for name, schema in properties() if not schema.get("description")]
    assert not silent, (
        "Write a docstring below the field of the class, or a line in ingest/console/api/words.py:"
        f" {silent}"
    )


def test_every_text_and_number_has_an_example() -> None:
    plain = ("string", "integer", "number")
    without = [
        name
        for name, schema in properties()
        if schema.get("type") in plain and not {"examples", "enum", "const"} & schema.keys()
    ]
    assert not without, (
        f"Give its name an example of its type in ingest/console/api/words.py: {without}"
    )


def test_every_schema_has_a_name_of_its_own_and_a_description() -> None:
    assert all(re.fullmatch(r"[A-Z][A-Za-z]+", name) for name in SCHEMAS), (
        f"Name the class in ingest/console/api/names.py: {sorted(SCHEMAS)}"
    )
    assert not [name for name, schema in SCHEMAS.items() if not schema.get("description")], (
        "Give the class a docstring."
    )
    types = {schema["title"] for schema in SCHEMAS.values()}
    assert types == SCHEMAS.keys()


def test_two_classes_do_not_share_a_name() -> None:
    """Otherwise one would silently stand for both."""
    of_failures, of_anything = FailureGroup, make_dataclass("FailureGroup", [("id", int)])
    with pytest.raises(ValueError, match="FailureGroup"):
        schemas.make([(each, "serialization", each) for each in (of_failures, of_anything)])


@EACH
def test_an_operation_is_named_by_the_rule(endpoint: Endpoint) -> None:
    rule = CHANGES if endpoint.changes else READS
    assert rule.fullmatch(endpoint.name), (
        "Name the function list_… if it returns a Listing, get_… if it returns one thing, export_…"
        " if it streams, and otherwise by a verb of CHANGES here, which may get a new one."
    )
    result = endpoint.result
    is_list = isinstance(result, type) and issubclass(result, Listing)
    assert is_list is endpoint.name.startswith("list_"), (
        "A list is a Listing (ingest/console/api/lists.py), and only that is called list_…"
    )


@EACH
def test_an_operation_has_a_tag_and_says_what_it_does(endpoint: Endpoint) -> None:
    operation = BY_NAME[endpoint.name]
    assert set(operation["tags"]) <= {tag["name"] for tag in DOCUMENT["tags"]}, (
        f"Describe the tag {operation['tags']} in TAGS of ingest/console/api/tags.py, or lead its"
        " path to another one in _TAG_OF."
    )
    assert operation["summary"]
    assert operation["description"]


@EACH
def test_every_parameter_says_what_it_means(endpoint: Endpoint) -> None:
    parameters = BY_NAME[endpoint.name]["parameters"]
    silent = [each["name"] for each in parameters if not each.get("description")]
    assert not silent, (
        "A parameter of the path needs a line in PARAMETERS of ingest/console/api/tags.py; one of"
        f" the query a description in its model, or a line in words.py: {silent}"
    )


@EACH
def test_the_example_of_an_answer_is_one(endpoint: Endpoint) -> None:
    for media_type, content in BY_NAME[endpoint.name]["responses"]["200"]["content"].items():
        assert content["example"] not in (None, "", {}, [])
        if media_type == "application/json":
            check(content["example"], content["schema"], endpoint.name)


@EACH
def test_the_example_of_a_body_is_taken(endpoint: Endpoint) -> None:
    body = BY_NAME[endpoint.name].get("requestBody")
    assert (body is not None) is (endpoint.body is not None)
    if endpoint.body is not None and body is not None:
        example = body["content"]["application/json"]["example"]
        TypeAdapter(endpoint.body).validate_python(example)


@EACH
def test_errors_have_one_form(endpoint: Endpoint) -> None:
    responses = BY_NAME[endpoint.name]["responses"]
    for status, response in responses.items():
        if status != "200":
            content = response["content"]["application/json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Error"}
            assert content["example"].keys() == {"error", "message"}
    assert {"400", "401", "403", "503"} <= responses.keys()
    assert ({"409", "413", "422"} <= responses.keys()) is endpoint.changes


def test_every_change_takes_an_idempotency_key() -> None:
    for endpoint in operations.ENDPOINTS:
        operation = BY_NAME[endpoint.name]
        headers = [each["name"] for each in operation["parameters"] if each["in"] == "header"]
        assert headers == (["Idempotency-Key"] if endpoint.changes else [])
        replayed = operation["responses"]["200"].get("headers", {})
        assert list(replayed) == (["Idempotency-Replayed"] if endpoint.changes else [])


def check(value: Any, schema: dict[str, Any], where: str) -> None:
    """Fail unless a value is as a schema says, as far as the document's schemas go."""
    if "$ref" in schema:
        check(value, SCHEMAS[schema["$ref"].rpartition("/")[2]], where)
        return
    if "anyOf" in schema:
        for choice in schema["anyOf"]:
            try:
                check(value, choice, where)
            except AssertionError:
                continue
            return
        pytest.fail(f"{where}: {value!r} is none of {schema['anyOf']}")
    if "enum" in schema:
        assert value in schema["enum"], where
    kinds = {
        "string": str, "integer": int, "number": int | float, "boolean": bool, "null": type(None),
        "array": list, "object": dict,
    }  # fmt: skip
    if "type" in schema:
        assert isinstance(value, kinds[schema["type"]]), f"{where}: {value!r} for {schema}"
    if isinstance(value, dict):
        known = schema.get("properties", {})
        assert set(schema.get("required", ())) <= value.keys(), where
        rest = schema.get("additionalProperties", True)
        for name, member in value.items():
            inner = known.get(name, rest)
            assert inner is not False, f"{where}.{name}"
            if isinstance(inner, dict):
                check(member, inner, f"{where}.{name}")
    if isinstance(value, list):
        places = schema.get("prefixItems")
        for number, member in enumerate(value):
            check(member, places[number] if places else schema.get("items", {}), where)


# What each page or form of the console does, and the operation that does the same. A page without
# one would do what no program can.
COUNTERPARTS = {
    "GET /": "get_overview",
    "POST /test-event": "send_test_event",
    "GET /events": "list_events",
    "GET /events/export": "export_events",
    "POST /events/preview": "begin_bulk_action",  # dry_run
    "POST /bulk-actions": "begin_bulk_action",
    "GET /bulk-actions/{id:number}": "get_bulk_action",
    "POST /bulk-actions/{id:number}/{change}": "cancel_bulk_action",
    "GET /events/{id:uuid}": "get_event",
    "POST /events/{id:uuid}/replay": "replay_event",
    "POST /events/{id:uuid}/discard": "discard_event",
    "POST /jobs/{id:number}/retry": "retry_job",
    "GET /deliveries/{id:uuid}": "get_delivery",
    "GET /events/{id:uuid}/edit": "get_event",
    "POST /events/{id:uuid}/edit": "resend_event",  # dry_run
    "POST /events/{id:uuid}/resend": "resend_event",
    "GET /entities/{kind}/{name}": "get_entity",
    "GET /failures": "list_failures",
    "GET /failures/{id:number}": "get_failure",
    "POST /failures/{id:number}/acknowledge": "acknowledge_failure",
    "POST /failures/{id:number}/resolve": "resolve_failure",
    "POST /failures/{id:number}/mute": "mute_failure",
    "POST /failures/{id:number}/reopen": "reopen_failure",
    "POST /failures/{id:number}/assign": "assign_failure",
    "POST /failures/{id:number}/note": "note_failure",
    "GET /refusals": "list_refusals",
    "GET /alerts": "list_alerts",
    "POST /alerts/{id}/acknowledge": "acknowledge_alert",
    "POST /alerts/{id}/unacknowledge": "unacknowledge_alert",
    "POST /alert-channels/{name}/test": "test_alert_channel",
    "GET /live": "list_events",
    "GET /live/stream": "list_events",
    "GET /processors": "list_processors",
    "GET /processors/{name:path}": "get_processor",
    "POST /processors/{name:path}/{change}": "pause_processor",
    "GET /sources": "list_sources",
    "GET /retention": "get_retention",
    "GET /erasures": "list_erasures",
    "POST /erasures": "order_erasure",
    "GET /erasures/{id:number}": "get_erasure",
    "POST /erasures/{id:number}/{change}": "erase_person",
    "GET /audit-log": "list_audit_log",
    "POST /views": "save_view",
    "POST /views/{id:number}/rename": "rename_view",
    "POST /views/{id:number}/delete": "delete_view",
    "GET /search-words": "get_search_words",
}
OF_THE_API_ITSELF = {"GET /docs", "GET /docs/{operation}"}


def test_every_page_has_its_counterpart_in_the_api() -> None:
    paths.register()
    served = routes.routes(Site(console=cast(Any, None), templates=cast(Any, None)))
    pages = {
        f"{method} {route.path}"
        for route in served
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert pages == COUNTERPARTS.keys() | OF_THE_API_ITSELF, (
        "Name the operation that does what the page does in COUNTERPARTS here. If there is none,"
        " add it to ingest/console/api/operations.py: both call one function of"
        " ingest/console/services."
    )
    assert set(COUNTERPARTS.values()) <= BY_NAME.keys()


def test_a_source_is_read_although_another_thread_makes_a_tree_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parse, refused = ast.parse, iter([True, True, False])

    def parse_beside_others(source: str) -> ast.Module:
        if next(refused):
            raise SystemError("AST constructor recursion depth mismatch (before=84, after=67)")
        return parse(source)

    monkeypatch.setattr(docstrings, "ast", Mock(wraps=ast, parse=parse_beside_others))
    assert [type(node) for node in docstrings._parsed("a = 1").body] == [ast.Assign]
