"""Keep the circuit breakers of processors: what failed in a row, and when the target is probed."""

from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None
oldest_code = "0005"
"""Code of this revision still runs on the schema, unless older code was refused before: an event
was removed by retention, or a person erased. Older code claims the jobs of an open breaker."""


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(
        f"INSERT INTO revisions SELECT '{revision}', greatest('{oldest_code}', max(oldest_code))"
        " FROM revisions WHERE revision >= '0013'"
    )


# The jobs that an open breaker has parked are unparked by the relay, as after a pause.
def downgrade() -> None:
    op.execute("DROP TABLE breakers")
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")


SCHEMA = """
CREATE TABLE breakers (
    processor text NOT NULL,
    watches text NOT NULL,
    opens_after integer NOT NULL,
    probe_every_s double precision NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    error_type text,
    error_job bigint,
    error_attempt integer,
    opened_at timestamptz,
    probe_at timestamptz,
    probe_job bigint,
    probe_attempt integer,
    probes integer DEFAULT 0 NOT NULL,
    closed_at timestamptz,
    closed_by text,
    CONSTRAINT breakers_pkey PRIMARY KEY (processor)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000);
COMMENT ON COLUMN breakers.watches IS 'the errors that say that the target is down';
COMMENT ON COLUMN breakers.failures IS 'such errors in a row, over all workers';
COMMENT ON COLUMN breakers.error_type IS 'of the last such error';
COMMENT ON COLUMN breakers.error_job IS 'whose attempt has the message of that error';
COMMENT ON COLUMN breakers.error_attempt IS 'the number of that attempt';
COMMENT ON COLUMN breakers.opened_at IS 'null: it is closed';
COMMENT ON COLUMN breakers.probe_at IS 'open: no probe before';
COMMENT ON COLUMN breakers.probe_job IS 'the only job that may be claimed while it is open';
COMMENT ON COLUMN breakers.probe_attempt IS 'its attempts when it was chosen';
COMMENT ON COLUMN breakers.probes IS 'since it opened';
COMMENT ON COLUMN breakers.closed_at IS 'the last time';
COMMENT ON COLUMN breakers.closed_by IS 'that time; null: by itself';
"""
