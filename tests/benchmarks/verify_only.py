"""Starlette as its guide has it, with the signature and nothing else: what it makes of the machine.

Rates from another machine compare with ours as this subject's rate there does with its rate here.
"""

import hashlib
import hmac

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.benchmarks.world import World, start_uvicorn
from tests.support.signing import SECRET


async def receive(request: Request) -> JSONResponse:
    """Verify, and keep nothing."""
    signed = request.headers["x-awal-webhook-timestamp"].encode() + b"." + await request.body()
    expected = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, request.headers["x-awal-webhook-signature"]):
        return JSONResponse({"error": "signature_mismatch"}, 401)
    return JSONResponse({"received": True})


app = Starlette(routes=[Route("/webhooks/awalchat", receive, methods=["POST"])])


class VerifyOnly:
    """The application above behind plain uvicorn."""

    name = "verify only"
    path = "/webhooks/awalchat"

    def prepare(self, world: World) -> None:
        """There is nothing to prepare."""

    def start_receivers(self, world: World, number: int = 1) -> int:
        """Start uvicorn with so many processes; returns the port."""
        return start_uvicorn(world, "tests.benchmarks.verify_only:app", {}, number)
