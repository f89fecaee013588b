"""Store alerts, the messages about them, and whose turn it is to evaluate them."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None
oldest_code = "0005"
"""Code of this revision still runs on the schema: tables are added, which it does not know."""


def upgrade() -> None:
    op.execute(ADDED)
    op.execute(f"INSERT INTO revisions VALUES ('{revision}', '{oldest_code}')")


def downgrade() -> None:
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")
    op.execute("DROP TABLE alerts, alert_messages, alert_turns")


ADDED = """
CREATE TABLE alerts (
    id bigint GENERATED ALWAYS AS IDENTITY,
    rule text NOT NULL,
    subject text NOT NULL,
    sentence text NOT NULL,
    value double precision NOT NULL,
    since timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    fired_at timestamptz,
    clear_since timestamptz,
    recovered_at timestamptz,
    told_at timestamptz,
    told_value double precision,
    recovery_told_at timestamptz,
    acknowledged_at timestamptz,
    acknowledged_by text,
    CONSTRAINT alerts_pkey PRIMARY KEY (id)
);
CREATE UNIQUE INDEX alerts_open ON alerts (rule, subject) WHERE recovered_at IS NULL;
CREATE INDEX alerts_recovered ON alerts (recovered_at) WHERE recovered_at IS NOT NULL;
COMMENT ON COLUMN alerts.subject IS 'what it is about; empty: there is only one';
COMMENT ON COLUMN alerts.since IS 'the condition was first seen';
COMMENT ON COLUMN alerts.seen_at IS 'the condition was last seen';
COMMENT ON COLUMN alerts.fired_at IS 'null: it has not held long enough';
COMMENT ON COLUMN alerts.clear_since IS 'null: the condition holds';
COMMENT ON COLUMN alerts.told_at IS 'the last message about it was written';
COMMENT ON COLUMN alerts.told_value IS 'the value in it, or a lower one that was seen since';
CREATE TABLE alert_messages (
    number bigint GENERATED ALWAYS AS IDENTITY,
    id uuid NOT NULL,
    channel text NOT NULL,
    content jsonb NOT NULL,
    made_at timestamptz NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    next_at timestamptz,
    sent_at timestamptz,
    error text,
    CONSTRAINT alert_messages_pkey PRIMARY KEY (number),
    CONSTRAINT alert_messages_id_key UNIQUE (id)
);
CREATE INDEX alert_messages_waiting ON alert_messages (channel, number) WHERE next_at IS NOT NULL;
COMMENT ON COLUMN alert_messages.id IS 'the same in every attempt';
COMMENT ON COLUMN alert_messages.next_at IS 'not before; null: it was sent or given up';
COMMENT ON COLUMN alert_messages.error IS 'of the last attempt';
CREATE TABLE alert_turns (
    purpose text NOT NULL,
    at timestamptz NOT NULL,
    by text NOT NULL,
    CONSTRAINT alert_turns_pkey PRIMARY KEY (purpose)
);
COMMENT ON COLUMN alert_turns.by IS 'the process';
"""
