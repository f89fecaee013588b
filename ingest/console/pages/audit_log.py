"""The page of the audit log: what operators did, and why."""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.dependencies import PAGE_SIZE
from ingest.console.pages.site import Site
from ingest.console.ui import masking
from ingest.console.ui.paths import link, parse_number
from ingest.store.bulk import replay
from ingest.store.bulk.replay import Operation
from ingest.store.reports import audit_log
from ingest.store.reports.audit_log import Action

_WAYS = {
    "password": "by password",
    "oidc": "by OIDC",
    "token": "by token",
    "loopback": "on the console's machine",
    "command line": "by command",
}
"""How the page says which way an author came in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One entry, with the bulk action that it belongs to."""

    action: Action
    bulk_action: Operation | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLogPage:
    """The view model of `audit_log.html`."""

    entries: tuple[AuditEntry, ...]
    """The newest first."""
    ways: Mapping[str, str]
    older: str | None
    newer: str | None
    """Links to older entries and to the newest; None: there are none."""


def routes(site: Site) -> list[BaseRoute]:
    """Return the page's routes."""
    return [site.get("/audit-log", show, name="audit log")]


def show(site: Site, request: Request) -> Response:
    """Show one page of the audit log."""
    before = parse_number(request.query_params.get("before"))
    with site.console.engine.connect() as connection:
        newest = audit_log.newest(connection, limit=PAGE_SIZE + 1, before=before)
        numbers = {action.replay for action in newest if action.replay is not None}
        bulk_actions = replay.numbered(connection, numbers)
    shown = newest[:PAGE_SIZE]
    masked = site.masks(request)
    view = AuditLogPage(
        entries=tuple(
            AuditEntry(
                action=masking.action(action, masked=masked),
                bulk_action=None if action.replay is None else bulk_actions.get(action.replay),
            )
            for action in shown
        ),
        ways=_WAYS,
        older=link("/audit-log", before=shown[-1].id) if len(newest) > PAGE_SIZE else None,
        newer="/audit-log" if before is not None else None,
    )
    return site.render(request, "audit_log.html", view, section="audit-log")
