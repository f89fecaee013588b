"""The names of attributes, by OpenTelemetry's semantic conventions where those have one.

https://opentelemetry.io/docs/specs/semconv/: HTTP spans, database spans, messaging spans. Values
are ours: ids, slugs, names, counts. No body, no header, no parameter of a statement.
"""

HTTP_METHOD = "http.request.method"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"
URL_PATH = "url.path"
ERROR_TYPE = "error.type"

DB_SYSTEM = "db.system.name"
DB_OPERATION = "db.operation.name"
DB_COLLECTION = "db.collection.name"
DB_BATCH_SIZE = "db.operation.batch.size"
DB_QUERY = "db.query.text"
POSTGRESQL = "postgresql"

MESSAGING_SYSTEM = "messaging.system"
MESSAGING_OPERATION = "messaging.operation.name"
MESSAGING_OPERATION_TYPE = "messaging.operation.type"
MESSAGING_DESTINATION = "messaging.destination.name"
MESSAGING_MESSAGE = "messaging.message.id"
MESSAGING_BATCH = "messaging.batch.message_count"
CELERY = "celery"

PROCESS = "ingest.process"
DELIVERY = "ingest.delivery.id"
EVENT_TYPE = "ingest.event.type"
SOURCE = "ingest.source"
PROCESSOR = "ingest.processor"
JOB = "ingest.job.id"
ATTEMPT = "ingest.attempt"
OUTCOME = "ingest.outcome"
LEFT_OUT = "ingest.statements_left_out"
