"""The API answers as its document says, whatever it is asked: requests made of the document."""

import json
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import GenerationConfig, SchemathesisConfig
from schemathesis.schemas import BaseSchema

from ingest.console import openapi
from ingest.console.api import ENDPOINTS, PREFIX, Problem
from ingest.console.access import credentials
from ingest.dispatch import connect
from tests.acceptance.harness import Stack
from tests.conftest import Servers, cloned

TOKEN = "token_of_the_deploy_script"
EXAMPLES = 25


@pytest.fixture(scope="module")
def api(
    servers: Servers, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A stack of its own with few events: what is asked for is really done."""
    with connect(servers.redis_url) as client:
        client.flushall()
    with cloned(servers, template) as url:
        stack = Stack(url, servers.redis_url, tmp_path_factory.mktemp("openapi"))
        stack.receiver()
        stack.worker()
        stack.relay()
        stack.console(console_tokens=f"deploy:operator:{credentials.digest(TOKEN)}")
        stack.post_all([order(number) for number in range(5)])
        stack.wait_until_idle()
        yield stack
        stack.close()


def order(number: int) -> bytes:
    data = {"order_id": number, "conversation_id": 7, "status": "pending"}
    return json.dumps({"event": "order.created", "data": data}).encode()



schema = schemathesis.openapi.from_dict(
    openapi.document(ENDPOINTS, problem=Problem, prefix=PREFIX, version="1")
)


@schema.parametrize()
@settings(max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_it(case: schemathesis.Case, api: Stack) -> None:
    case.call_and_validate(base_url=f"http://127.0.0.1:{api.console_port}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20)
