"""What people send does not reach the log of the PostgreSQL that we start."""

from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from tests.conftest import Servers
from tests.support.waiting import until


def test_a_row_that_a_constraint_refuses_is_not_in_the_log(
    servers: Servers, database_url: str
) -> None:
    phone, mark = "+966512345678", f"marked_{uuid4().hex}"
    with psycopg.connect(database_url, autocommit=True, prepare_threshold=None) as connection:
        connection.execute(
            f"CREATE TABLE {mark} (id int PRIMARY KEY, phone text"
            f" CONSTRAINT {mark}_check CHECK (length(phone) < 5), note text NOT NULL UNIQUE)"
        )
        insert = f"INSERT INTO {mark} VALUES (%s, %s, %s)"
        # A refused row, one without a value; below, a duplicate key.
        for values, error in (
            ((1, phone, "a"), psycopg.errors.CheckViolation),
            ((1, "a", None), psycopg.errors.NotNullViolation),
        ):
            with pytest.raises(error):
                connection.execute(insert, values)
        connection.execute(insert, (1, "a", phone))
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(insert, (2, "b", phone))
    log = log_of(servers)
    until(lambda: log.read_text().count(mark) >= 3, what="the server has logged the errors")
    text = log.read_text()
    assert f'violates check constraint "{mark}_check"' in text
    assert phone not in text
    assert "INSERT INTO" not in text


def log_of(servers: Servers) -> Path:
    with psycopg.connect(servers.direct_url("postgres")) as connection:
        row = connection.execute("SHOW unix_socket_directories").fetchone()
    assert row is not None
    return Path(row[0]).parent / "logs" / "postgres.log"
