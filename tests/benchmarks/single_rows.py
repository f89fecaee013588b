"""`pgbench` inserting single rows: what PostgreSQL itself does for a row a commit."""

import re
import subprocess

from ingest.local import postgres
from tests.benchmarks.messages import body
from tests.benchmarks.world import World

_TABLE = b"""
    CREATE TABLE single_rows (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        received_at timestamptz NOT NULL DEFAULT now(),
        body bytea NOT NULL
    )
"""
_RATE = re.compile(r"^tps = ([\d.]+)", re.MULTILINE)


def rate(world: World, *, connections: int, seconds: float) -> float:
    """Return how many rows a second are inserted, each in a transaction, with a prepared statement
    over so many connections. A row has a body of 300 bytes, a time and a primary key."""
    with world.connect() as connection:
        connection.execute(_TABLE)
    script = world.home / "single_row.sql"
    script.write_text(f"INSERT INTO single_rows (body) VALUES ('\\x{body(1).hex()}');\n")
    done = subprocess.run(
        [
            postgres.find_binaries() / "pgbench",
            *("--no-vacuum", "--protocol=prepared", f"--file={script}"),
            *(f"--client={connections}", "--jobs=2", f"--time={max(1, round(seconds))}"),
            world.database_url,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    printed = _RATE.search(done.stdout)
    assert printed is not None, done.stdout
    return float(printed[1])
