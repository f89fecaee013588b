"""Statements of the pipeline's own, apart from those of the application that shares the database.

Every statement names the pipeline's tables by the schema `ingest`, whatever the search path is. An
installation whose tables live in another schema has the name replaced as a statement is sent.
Statements of a processor's author are never touched: that application may have a schema `ingest`.
"""

from sqlalchemy import TextClause, text

from ingest.store.address import SCHEMA

__all__ = ["OWN", "SCHEMA", "in_schema", "quoted", "statement"]

OWN = "ingest_own_statement"
"""The execution option that marks a statement of ours."""


def statement(sql: str) -> TextClause:
    """Return a statement of the pipeline's own; it names its tables `ingest.…`."""
    return text(sql).execution_options(**{OWN: True})


def in_schema(sql: str, schema: str) -> str:
    """Return `sql` with its tables in `schema` instead of `ingest`."""
    return sql if schema == SCHEMA else sql.replace(f"{SCHEMA}.", f"{quoted(schema)}.")


def quoted(identifier: str) -> str:
    """Return an identifier as PostgreSQL reads it literally."""
    return '"' + identifier.replace('"', '""') + '"'
