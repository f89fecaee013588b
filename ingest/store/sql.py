"""The pipeline's own statements, marked apart from those of the application in the same database.

Every own statement names its tables by the schema `ingest`, whatever the search path is. If the
tables are in another schema, the name is replaced when the statement is sent. Statements of a
processor's author are never changed: that application may have a schema `ingest` of its own.
"""

from sqlalchemy import TextClause, text

from ingest.store.address import SCHEMA

__all__ = ["OWN", "SCHEMA", "in_schema", "quoted", "statement"]

OWN = "ingest_own_statement"
"""The execution option that marks a statement as the pipeline's own."""


def statement(sql: str) -> TextClause:
    """Return a statement, marked as the pipeline's own; it names its tables `ingest.…`."""
    return text(sql).execution_options(**{OWN: True})


def in_schema(sql: str, schema: str) -> str:
    """Return `sql` with its tables in `schema` instead of `ingest`."""
    return sql if schema == SCHEMA else sql.replace(f"{SCHEMA}.", f"{quoted(schema)}.")


def quoted(identifier: str) -> str:
    """Return an identifier in quotes, so that PostgreSQL takes it literally."""
    return '"' + identifier.replace('"', '""') + '"'
