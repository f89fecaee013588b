"""The API answers as its document says, whatever it is asked: requests made from the document."""

import copy
import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import positive_data_acceptance

from ingest import __version__
from ingest.console.api import operations
from ingest.console.api.operations import PREFIX
from ingest.console.auth import credentials, request_info
from tests.acceptance import shop_processors
from tests.acceptance.harness import Stack
from tests.conftest import Servers, cloned
from tests.support.redis_client import connect
from tests.support.rows import execute
from tests.support.waiting import until

TOKENS = {"operator": "token_of_the_deploy_script", "viewer": "token_of_the_dashboard"}
EXAMPLES = 25
"""Generated ones, for each operation; besides, each boundary of its schemas."""
NOBODYS = "00000000-0000-4000-8000-000000000000"

HAS_IDS: dict[str, Any] = {"required": ["ids"], "properties": {"ids": {"minItems": 1}}}
HAS_QUERY: dict[str, Any] = {"required": ["q"], "properties": {"q": {"pattern": r"\S"}}}
IS_EVERYTHING: dict[str, Any] = {
    "required": ["everything"],
    "properties": {"everything": {"const": True}},
}


def has(kind: str) -> dict[str, Any]:
    return {"required": [kind], "properties": {kind: {"minItems": 1}}}


# What the document says in words, because generators of clients would make several classes of it.
CONDITIONS = {
    "BulkActionInput": {
        "anyOf": [HAS_IDS, HAS_QUERY, IS_EVERYTHING],
        "not": {"allOf": [HAS_IDS, HAS_QUERY]},
    },
    "ResolveInput": {
        "not": {
            "required": ["in_release", "when_succeeded"],
            "properties": {"in_release": {"type": "string"}, "when_succeeded": {"const": True}},
        }
    },
    "MuteInput": {
        "not": {
            "required": ["until", "times"],
            "properties": {"until": {"type": "string"}, "times": {"type": "integer"}},
        }
    },
    "ErasureInput": {"anyOf": list(map(has, ("phones", "contacts", "conversations")))},
}


def conditional() -> dict[str, Any]:
    """The document by the declarations, since tests are collected before there is a server."""
    described = copy.deepcopy(operations.document(__version__))
    schemas = described["components"]["schemas"]
    for name, conditions in CONDITIONS.items():
        schemas[name] |= conditions
    for name in ("ErasureInput", "TestEventInput"):
        source = schemas[name]["properties"]["source"]
        source["enum"] = source["examples"]
    return described


document = schemathesis.openapi.from_dict(conditional())
OPERATIONS = [(each.method.upper(), path) for path in document for each in document[path].values()]


@pytest.fixture(scope="module")
def api(
    servers: Servers, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A stack of its own with few events: what is asked for is really done."""
    with connect(servers.redis_url) as client:
        client.flushall()
    with cloned(servers, template) as url:
        stack = Stack(
            url,
            servers.redis_url,
            tmp_path_factory.mktemp("openapi"),
            processors="shop_processors",
            console_tokens=";".join(
                f"{role}:{role}:{credentials.digest(token)}" for role, token in TOKENS.items()
            ),
        )
        try:
            start(stack)
            yield stack
        finally:
            stack.close()


def start(stack: Stack) -> None:
    shutil.copy(shop_processors.__file__, stack.folder)
    execute(stack.engine, "CREATE TABLE effects (what text, event text, attempt integer)")
    stack.receiver()
    stack.worker()
    stack.relay()
    stack.console()
    stack.post_all([order(1, "discards"), order(2, "fails twice"), order(3), order(3)])
    stack.post(order(1, "something else"))
    stack.post(b"[]")
    stack.wait_until_idle()
    execute(
        stack.engine,
        "INSERT INTO alerts (rule, subject, sentence, value, since, seen_at, fired_at,"
        " recovered_at)"
        " VALUES ('jobs_parked', '', 'One is parked.', 1, now(), now(), now(), now())",
    )


def order(number: int, note: str = "") -> bytes:
    data = {"order_id": number, "conversation_id": 7, "status": "pending", "note": note}
    return json.dumps({"event": "order.created", "data": data}).encode()


def call(api: Stack, case: Case[Any], role: str | None = "operator") -> Response:
    """The answer, which must be one of those that the document tells of."""
    base_url = f"http://127.0.0.1:{api.console_port}"
    headers = {} if role is None else {"Authorization": f"Bearer {TOKENS[role]}"}
    response = case.call(base_url, headers=headers, timeout=300)
    case.validate_response(
        response,
        headers=headers,
        excluded_checks=[positive_data_acceptance] if is_misspelt(case, response) else [],
        transport_kwargs={"base_url": base_url},
    )
    return response


def is_misspelt(case: Case[Any], response: Response) -> bool:
    """Whether it was refused for a search that is a text, as documented, and makes no sense; or for
    a key that another generated request had."""
    if response.status_code == 422:
        return bool(response.json()["error"] == "idempotency_key_reused")
    asked = case.query if case.method == "GET" else case.body
    return (
        response.status_code == 400
        and response.json()["error"] in ("bad_query", "nothing_selected", "bad_time", "bad_place")
        and isinstance(asked, dict)
        and any(asked.get(name) for name in ("q", "since", "until", "cursor"))
    )


def test_the_document_is_valid_and_served(api: Stack) -> None:
    document.validate()
    served = api.ask(f"{PREFIX}/openapi.json", authorization=f"Bearer {TOKENS['viewer']}")
    assert served.json == operations.document(__version__)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_nobody_is_answered_without_a_token(api: Stack, method: str, path: str) -> None:
    assert call(api, made(method, path), role=None).status_code == 401


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_a_viewer_may_read_and_not_change(api: Stack, method: str, path: str) -> None:
    status = call(api, made(method, path), role="viewer").status_code
    may_read = method == "GET" and not request_info.is_for_operators(path)
    assert status in ((200, 404) if may_read else (403,))


def made(method: str, path: str, body: dict[str, Any] | None = None, **found: Any) -> Case[Any]:
    """A request, of something that is there or of nothing."""
    operation = document[path][method]
    names = [each.name for each in operation.path_parameters]
    given = {name: found.get(name, NOBODYS) for name in names}
    if method == "GET":
        return operation.Case(path_parameters=given, query=QUERIES.get(path, {}))
    return operation.Case(path_parameters=given, body=body or {}, media_type="application/json")


EDITED = '{"event": "order.created", "data": {"order_id": 1, "note": "edited"}}'
# What some operations cannot do without.
QUERIES = {
    f"{PREFIX}/events/by-sender-id": {"source": "awalchat", "event_id": "order.created:1"},
}
BODIES = {
    f"{PREFIX}/entities": {"kind": "order", "value": "1"},
    f"{PREFIX}/events/{{id}}/resend": {"body": EDITED},
    f"{PREFIX}/failures/{{id}}/note": {"text": "The CRM was away."},
}


def test_what_is_there_is_answered_as_documented(api: Stack) -> None:
    event = api.value("SELECT id::text FROM events WHERE event_id = 'order.created:1'")
    # A request of another test may be replaying the dead one.
    job = api.value("SELECT id FROM jobs ORDER BY state = 'dead' DESC, id LIMIT 1")
    replayed = call(api, made("POST", f"{PREFIX}/bulk-actions", body={"everything": True})).json()
    ordered = call(api, made("POST", f"{PREFIX}/erasures", body={"contacts": ["7001"]})).json()
    view = call(api, made("POST", f"{PREFIX}/views", body={"name": "v", "q": ""})).json()
    known = {
        "erasures": ordered["id"],
        "views": view["id"],
        **{
            "events": event,
            "deliveries": event,
            "jobs": job,
            "alerts": api.value("SELECT max(id) FROM alerts"),
        },
        "bulk-actions": replayed["bulk_action"]["id"],
        "failures": until(
            lambda: api.value("SELECT max(id) FROM failure_groups"),
            what="the relay has recorded the failure",
        ),
        "refusals": until(
            lambda: api.value("SELECT max(request::text) FROM refusal_counts"),
            what="the receiver has reported",
        ),
    }
    for method, path in OPERATIONS:
        kind = path.split("/")[3]
        name = "1" if kind == "entities" else "whims"
        case = made(method, path, BODIES.get(path), id=known.get(kind), kind="order", name=name)
        status = call(api, case).status_code
        # A replay has ended when it is to be paused, "nothing" is nothing to replay or to erase,
        # nobody is found, no channel is configured, nothing is no name, no run of what is not
        # periodic can be made, and what declares no limits has none.
        refused = {
            "bulk-actions": (400, 409),
            "erasures": (400, 409),
            "views": (400,),
            "alert-channels": (404, 409),
            "processors": {"run": (404,), "close": (409,), "probe": (409,), "limits": (409,)}.get(
                path.rpartition("/")[2], ()
            ),
        }.get(kind, ())
        assert status == 200 or status in refused, (method, path)


@document.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_whatever_is_asked_is_answered_as_documented(case: Case[Any], api: Stack) -> None:
    call(api, case)
