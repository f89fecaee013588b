"""The parameters and bodies of the API's operations."""

from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BeforeValidator, ConfigDict, Field

from ingest import rates
from ingest.console.api import lists
from ingest.console.api.endpoints import InputModel
from ingest.console.dependencies import LONGEST_QUERY, PAGE_SIZE
from ingest.console.services.commands import REASON_LIMIT
from ingest.console.services.failure_changes import LONGEST_NAME as LONGEST_ASSIGNEE
from ingest.console.services.failure_changes import LONGEST_NOTE, MOST_TIMES
from ingest.console.services.failures import Wanted
from ingest.console.services.ranges import Range
from ingest.console.services.refusals import Asked
from ingest.console.services.traffic import Split
from ingest.console.ui.forms import MAX_RATE, MIN_RATE
from ingest.entities.entity import LONGEST
from ingest.entities.timeline import Order, Place
from ingest.export import Form
from ingest.sources import registry
from ingest.store.failures.records import Sort, State
from ingest.store.views import LONGEST_NAME, NAME

_MAX_LIMIT = 200
_MAX_IDS = 1_000

_Text = Annotated[str, Field(max_length=LONGEST_QUERY, pattern=r"^[^\x00]*$")]
_Limit = Annotated[int, Field(ge=1, le=_MAX_LIMIT)]
_EventCursor = Annotated[str | None, Field(pattern=lists.BY_ID)]
_Sort = Literal["newest", "oldest"]
_Slug = Annotated[str | None, Field(max_length=200, pattern=r"^[^\x00]*$")]
_Reason = Annotated[str | None, Field(max_length=REASON_LIMIT, pattern=r"^[^\x00]*$")]


class EventsQuery(InputModel):
    """Which events, and which page of them."""

    q: _Text = Field("", description="the search, in the syntax of the console's search field")
    limit: _Limit = PAGE_SIZE
    cursor: _EventCursor = None
    sort: _Sort = "newest"


_ViewName = Annotated[str, Field(max_length=LONGEST_NAME, pattern=NAME)]


class ViewNameInput(InputModel):
    """The name of a saved view."""

    name: _ViewName


class ViewInput(ViewNameInput):
    """A search to keep for all users."""

    q: _Text = Field(description="the search, in the syntax of the console's search field")
    sort: _Sort = "newest"


class ExportQuery(InputModel):
    """What to export, and how."""

    q: _Text = Field("", description="the search, in the syntax of the console's search field")
    format: Form = Field(Form.JSON_LINES, description="JSON lines for programs, CSV for people")
    sort: _Sort = "newest"
    bodies: bool = Field(False, description="with the bodies as they were received")


class EntityQuery(InputModel):
    """Which of an entity's events, and in which order."""

    order: Order = Field(Order.NEWEST, description="which event comes first")
    source: _Slug = Field(None, description="only the events of this sender")
    limit: _Limit = PAGE_SIZE
    cursor: _EventCursor = None

    def place(self) -> Place:
        """Return what a page of its events is asked for by."""
        bounds = lists.bounds(self.cursor)
        return Place(
            order=self.order,
            before=bounds.before,
            after=bounds.after,
            source=self.source,
            limit=self.limit,
        )


class EntityInput(InputModel):
    """Which entity is meant."""

    kind: Literal["conversation", "phone", "order", "message", "contact"]
    value: Annotated[str, Field(max_length=LONGEST, pattern=r"^[!-~]+( [!-~]+)*$")] = Field(
        description="what it is called: an id, or a phone number however it is written"
    )


class SenderIdQuery(InputModel):
    """Which event, by what its sender calls it."""

    source: str = Field(max_length=200, pattern=r"^[^\x00]*$", description="the sender's slug")
    event_id: str = Field(
        max_length=1_000, pattern=r"^[^\x00]*$", description="the event's id at the sender"
    )


class DeliveriesQuery(InputModel):
    """Which page of an event's deliveries."""

    limit: _Limit = PAGE_SIZE
    cursor: str | None = Field(
        None,
        pattern=lists.BY_DELIVERY,
        description="`next_cursor` of another page; left out: the first page",
        examples=["newer.0199c8f0-2a10-7d44-8e02-5f6a7b8c9d0e"],
    )


class OverviewQuery(InputModel):
    """How far to look back."""

    range: Range = Range.HOUR


class TrafficQuery(OverviewQuery):
    """How far to look back, and what to tell apart."""

    by: Split = Split.PROCESSOR


class PageQuery(InputModel):
    """Which page of a list."""

    limit: _Limit = PAGE_SIZE
    cursor: str | None = Field(
        None,
        pattern=lists.BY_NUMBER,
        description="`next_cursor` of another page; left out: the first page",
        examples=["older.12"],
    )


_MOMENT = {"examples": ["2026-01-31T12:00:00Z", "2h"]}
_Moment = Annotated[
    str | None, Field(max_length=50, pattern=r"^[^\x00]+$", json_schema_extra=_MOMENT)
]


class RefusalPeriodQuery(InputModel):
    """Which refused requests or rejected deliveries."""

    range: Range = Field(Range.DAY, description="how far to look back from `until`")
    since: _Moment = Field(None, description="not before this time, whatever the range")
    until: _Moment = Field(None, description="before this time; left out: until now")
    source: _Slug = Field(None, description="of this source; `-`: no source is configured")
    reason: _Slug = Field(None, description="the slug in the answer, `error`")
    q: _Slug = Field(None, description="a part of reason, source, address or sentence")

    def asked(self, address: str | None = None) -> Asked:
        """Return what is asked for, of this address."""
        return Asked(
            range=self.range,
            since=self.since,
            until=self.until,
            source=self.source,
            reason=self.reason,
            address=address,
            text=self.q,
        )


class RefusalSummaryQuery(RefusalPeriodQuery):
    """Which refused requests."""

    address: _Slug = Field(
        None, description="from this address; `-`: from further ones, which are not told apart"
    )


class RefusalsQuery(RefusalSummaryQuery):
    """Which refused requests, and which page of them."""

    limit: _Limit = PAGE_SIZE
    cursor: str | None = Field(
        None,
        max_length=2_000,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="`next_cursor` of another page; left out: the first page",
    )


class RejectedQuery(RefusalPeriodQuery):
    """Which rejected deliveries, and which page of them."""

    state: Literal["rejected"] = Field(
        "rejected", description="those that hold no event; `/events` lists those that do"
    )
    limit: _Limit = PAGE_SIZE
    cursor: str | None = Field(
        None,
        pattern=lists.BY_ID,
        description="`next_cursor` of another page; left out: the first page",
        examples=["older.0199c8f0-1f5a-7c3e-9b1d-0a5b6c7d8e9f"],
    )


class FailureQuery(InputModel):
    """How far the counts of a failure look back."""

    range: Range = Range.DAY


class FailuresQuery(FailureQuery):
    """Which failures, in which order."""

    state: Literal["open", "acknowledged", "resolved", "muted", "all"] = Field(
        "open", description="those in this state, or all"
    )
    assigned_to: _Slug = Field(None, description="only those that are assigned to this name")
    sort: Sort = Field(Sort.JOBS, description="what the list begins with the most or newest of")

    def wanted(self) -> Wanted:
        """Return what is asked for."""
        return Wanted(
            states=tuple(State) if self.state == "all" else (State(self.state),),
            assigned_to=self.assigned_to,
            sort=self.sort,
            range=self.range,
        )


class AlertsQuery(InputModel):
    """Which alerts."""

    recovered: bool = Field(False, description="recovered ones too, of the last 30 days")
    limit: _Limit = PAGE_SIZE


class ReasonInput(InputModel):
    """The reason, which the audit log keeps."""

    reason: _Reason = None


def _whole(value: object) -> object:
    """Return 3 for 3.0, which is an integer by JSON Schema, and anything else as it is."""
    if isinstance(value, float | Decimal) and value == value // 1:
        return int(value)
    return value


_Whole = Annotated[int | None, BeforeValidator(_whole)]
_Rate = Annotated[str | None, Field(max_length=40, json_schema_extra={"pattern": rates.PATTERN})]


class LimitsInput(ReasonInput):
    """Limits to set in place of the declared ones; what is null is as declared."""

    concurrency: _Whole = Field(
        None, ge=1, le=rates.MOST_AT_ONCE, description="how many jobs run at once"
    )
    rate: _Rate = Field(None, description="how many jobs start in any window of time: `50/s`")
    key_concurrency: _Whole = Field(
        None, ge=1, le=rates.MOST_AT_ONCE, description="how many jobs of one key run at once"
    )
    key_rate: _Rate = Field(
        None, description="how many jobs of one key start in any window of time"
    )

    @property
    def values(self) -> dict[str, int | str | None]:
        """Return the limits by name."""
        return self.model_dump(exclude={"reason"})


class ResolveInput(ReasonInput):
    """How a failure is mended; `in_release` and `when_succeeded` exclude each other."""

    in_release: str | None = Field(
        None,
        max_length=200,
        pattern=r"^[!-~]+$",
        description="the release that mends it, or `next`: attempts of the releases that had it"
        " are no return",
    )
    when_succeeded: bool = Field(
        False, description="resolve it once none of its jobs fails or is to be repeated"
    )


class MuteInput(ReasonInput):
    """For how long a failure is muted: for ever if neither `until` nor `times` is set."""

    until: AwareDatetime | None = Field(None, description="open it again at this time")
    times: _Whole = Field(
        None, ge=1, le=MOST_TIMES, description="open it once it has happened so often again"
    )


class AssignInput(ReasonInput):
    """Who is to look after a failure."""

    to: str | None = Field(
        None, max_length=LONGEST_ASSIGNEE, description="a name; null: nobody is", examples=["amal"]
    )


class NoteInput(InputModel):
    """What to keep about a failure."""

    text: Annotated[str, Field(min_length=1, max_length=LONGEST_NOTE)]


_AllJobs = Annotated[
    bool, Field(description="of named events, repeat the jobs that have succeeded, too")
]


class ReplayInput(ReasonInput):
    """How to replay an event."""

    all_jobs: _AllJobs = False


class ResendInput(ReasonInput):
    """The edited body of an event."""

    body: str = Field(description="the whole body, as text")
    number: UUID | None = Field(
        None, description="of this order: the same again sends nothing more; null: a new one"
    )
    dry_run: bool = Field(False, description="tell what it would become, and send nothing")


_GIVEN = 20
"""Numbers or ids of one kind, at most."""
_Phone = Annotated[str, Field(pattern=r"^\+?[1-9]([ .()-]?[0-9]){6,14}$")]
_PersonsId = Annotated[str, Field(max_length=200, pattern=r"^[!-~]+( [!-~]+)*$")]


class ErasureInput(InputModel):
    """Who is to be erased: all that is given is one person, by at least one name."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"phones": ["+442079460958"], "reason": "letter 71"}],
        }
    )

    phones: list[_Phone] = Field(
        default_factory=list, max_length=_GIVEN, description="with the country's code"
    )
    contacts: list[_PersonsId] = Field(
        default_factory=list, max_length=_GIVEN, description="contact, user or customer ids"
    )
    conversations: list[_PersonsId] = Field(
        default_factory=list, max_length=_GIVEN, description="ids of conversations"
    )
    source: str | None = Field(
        None,
        max_length=200,
        description="only what this one sent; null: all sources",
        json_schema_extra=lambda schema: _list_sources(schema),
    )
    reason: _Reason = Field(None, description="kept, so it must not name the person")


class NothingInput(InputModel):
    """Nothing."""


class BulkActionInput(InputModel):
    """What to replay or discard: events by their `ids`, or all that match a search, `q`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"action": "replay", "q": "state:dead type:order.*", "reason": "the CRM is back"}
            ],
        }
    )

    action: Literal["replay", "discard"] = "replay"
    ids: list[UUID] = Field(default_factory=list, max_length=_MAX_IDS)
    q: _Text = ""
    everything: bool = Field(
        False, description="required without `ids` and `q`: selects all dead letters"
    )
    reason: _Reason = None
    rate: float | None = Field(
        None, ge=MIN_RATE, le=MAX_RATE, allow_inf_nan=False, description="jobs per second"
    )
    all_jobs: _AllJobs = False
    dry_run: bool = Field(False, description="count, and change nothing")


def _list_types(schema: dict[str, Any]) -> None:
    """Add the types of all senders' samples to a schema; some senders' events have any type."""
    types = (name for source in registry.classes().values() for name in source.samples.types)
    schema["examples"] = [*dict.fromkeys(types), None]


def _list_sources(schema: dict[str, Any]) -> None:
    """Add the slugs of all senders to a schema."""
    schema["examples"] = [*registry.classes(), None]


class TestEventInput(InputModel):
    """Which sample to send."""

    type: str | None = Field(
        None,
        max_length=200,
        pattern=r"^[^\x00]*$",
        description="the event type; null: the sender's first sample",
        json_schema_extra=_list_types,
    )
    source: str | None = Field(
        None,
        max_length=200,
        description="the sender; null: the default source",
        json_schema_extra=_list_sources,
    )
