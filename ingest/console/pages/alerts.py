"""The page of alerts: what fires, what has recovered, and the channels that are told."""

from dataclasses import dataclass

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.alerts.catalogue import RULES
from ingest.alerts.configuration import Configuration
from ingest.alerts.explain import channel_in_words
from ingest.console.errors import BadRequest
from ingest.console.pages.site import Site, redirect, user
from ingest.console.services import alerts as alert_lines
from ingest.console.ui.forms import text_field
from ingest.console.ui.paths import parse_number
from ingest.store import alerts
from ingest.store.alerts import Alert, ChannelState

RECENT = 50
"""Alerts that have fired, the recovered ones included, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRow:
    """An alert, and what its rule says."""

    alert: Alert
    level: alert_lines.Level
    title: str
    advice: str
    href: str
    processor: str | None
    """The processor that it is about; None: it is about something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRow:
    """A channel, and what became of its messages."""

    name: str
    words: str
    """Its kind and what it is told."""
    state: ChannelState | None
    """None: it has had no message lately."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertsPage:
    """The view model of `alerts.html`."""

    firing: tuple[AlertRow, ...]
    held: tuple[AlertRow, ...]
    """Their condition holds, and has not held long enough."""
    recovered: tuple[AlertRow, ...]
    channels: tuple[ChannelRow, ...]


def routes(site: Site) -> list[BaseRoute]:
    """Return the routes of the page and its forms."""
    return [
        site.get("/alerts", show, name="alerts"),
        site.post("/alerts/{id}/acknowledge", acknowledge, name="acknowledge alert"),
        site.post("/alerts/{id}/unacknowledge", unacknowledge, name="unacknowledge alert"),
        site.post("/alert-channels/{name}/test", send_test, name="test alert channel"),
    ]


def acknowledge(site: Site, request: Request, form: FormData) -> Response:
    """Acknowledge an alert."""
    number = _number(request)
    site.console.commands.acknowledge(user(request), number, text_field(form, "reason"))
    return redirect("/alerts")


def unacknowledge(site: Site, request: Request, form: FormData) -> Response:
    """Take an acknowledgement back."""
    number = _number(request)
    site.console.commands.unacknowledge(user(request), number, text_field(form, "reason"))
    return redirect("/alerts")


def send_test(site: Site, request: Request, _form: FormData) -> Response:
    """Send a test message."""
    site.console.commands.test_channel(user(request), request.path_params["name"])
    return redirect("/alerts")


def _number(request: Request) -> int:
    number = parse_number(request.path_params["id"])
    if number is None:
        raise BadRequest("An alert has a number.", reason="bad_id")
    return number


def show(site: Site, request: Request) -> Response:
    """Show the alerts and the channels."""
    with site.console.engine.connect() as connection:
        active = alerts.active(connection)
        newest = alerts.newest(connection, recovered=True, limit=RECENT)
        states = alerts.channel_states(connection)
    view = AlertsPage(
        firing=tuple(_row(alert) for alert in newest if alert.recovered_at is None),
        held=tuple(_row(alert) for alert in active if alert.fired_at is None),
        recovered=tuple(_row(alert) for alert in newest if alert.recovered_at is not None),
        channels=tuple(_channels(site.console.alerting, states)),
    )
    return site.render(request, "alerts.html", view, section="alerts")


def _row(alert: Alert) -> AlertRow:
    rule = RULES.get(alert.rule)
    return AlertRow(
        alert=alert,
        level=alert_lines.level(alert),
        title=rule.title if rule else alert.rule,
        advice=rule.advice if rule else "",
        href=rule.href if rule else "/alerts",
        processor=alert_lines.processor_of(alert),
    )


def _channels(configuration: Configuration, states: dict[str, ChannelState]) -> list[ChannelRow]:
    return [
        ChannelRow(name=name, words=channel_in_words(channel), state=states.get(name))
        for name, channel in configuration.channels.items()
    ]
