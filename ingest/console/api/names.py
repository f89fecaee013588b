"""What the API calls classes whose own names say too little outside their modules."""

from collections.abc import Mapping
from types import MappingProxyType

from ingest.console.api.endpoints import ErrorBody
from ingest.console.api.results import OverviewNow
from ingest.console.services import ranges, traffic
from ingest.console.services.entity_view import EntryView
from ingest.console.services.event_view import EventView, Signature
from ingest.console.services.failures import ListedFailure
from ingest.console.services.processor_view import ProcessorView
from ingest.console.services.resending import Preview
from ingest.console.services.source_view import SourceView
from ingest.entities import timeline
from ingest.erasure.report import Report as Erasure
from ingest.sources.diagnosis import Step
from ingest.store.alerts import ChannelState
from ingest.store.bulk.replay import Counts, Operation
from ingest.store.bulk.work import Work
from ingest.store.failures.records import Note, ReleaseOfFailure, Sort
from ingest.store.failures.records import State as FailureState
from ingest.store.pipeline.breakers import BreakerRecord
from ingest.store.pipeline.processors import ProcessorRecord
from ingest.store.pipeline.schedules import ScheduleRecord
from ingest.store.reports.audit_log import Action
from ingest.store.reports.event_detail import AttemptRecord, JobRecord
from ingest.store.reports.failures import Rejected
from ingest.store.reports.heartbeats import ProcessRecord, WorkerRecord
from ingest.store.reports.key_use import KeyUse, Part
from ingest.store.reports.totals import Stats
from ingest.store.retention import report as retention
from ingest.store.search.counts import Count, Kind
from ingest.store.search.events import Element, ListedEvent

NAMES: Mapping[type, str] = MappingProxyType(
    {
        Action: "AuditLogEntry",
        AttemptRecord: "Attempt",
        ChannelState: "AlertChannel",
        Count: "EventCount",
        Counts: "BulkActionCounts",
        Erasure: "Erasure",
        ErrorBody: "Error",
        EventView: "Event",
        JobRecord: "Job",
        Operation: "BulkAction",
        OverviewNow: "Overview",
        Element: "DeliveryElement",
        EntryView: "EntityEvent",
        KeyUse: "SourceKey",
        Kind: "CountKind",
        ListedEvent: "EventSummary",
        Part: "SourceKeyUse",
        Preview: "ResendPreview",
        ProcessRecord: "Process",
        ProcessorRecord: "ProcessorSummary",
        ProcessorView: "Processor",
        ListedFailure: "FailureGroup",
        FailureState: "FailureState",
        Note: "FailureNote",
        ReleaseOfFailure: "FailureRelease",
        Sort: "FailureSort",
        ScheduleRecord: "ProcessorSchedule",
        BreakerRecord: "ProcessorBreaker",
        Rejected: "RejectedDeliveries",
        Signature: "DeliverySignature",
        SourceView: "Source",
        Stats: "StatsOfOverview",
        Step: "RefusalStep",
        Work: "BulkActionWork",
        WorkerRecord: "WorkerOfProcessor",
        retention.Bodies: "RetainedBodies",
        retention.Held: "RetainedKind",
        retention.Report: "Retention",
        timeline.Erasure: "ErasureOfEntity",
        timeline.FieldValue: "ReadModelField",
        timeline.Row: "ReadModelRow",
        timeline.Said: "ReadModelClaim",
        ranges.Range: "Period",
        timeline.StatusChange: "ReadModelChange",
        traffic.Group: "TrafficGroup",
        traffic.Split: "TrafficSplit",
    }
)
