"""Create the tables that the built-in processors write."""

from alembic import context, op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if context.config.attributes["read_model"]:
        op.execute(SCHEMA)


def downgrade() -> None:
    op.execute(
        "DROP TABLE IF EXISTS contacts, order_status_changes, orders, conversations, messages"
    )


SCHEMA = """
CREATE TABLE messages (
    message_id text NOT NULL,
    conversation_id bigint,
    from_number text,
    to_number text,
    type text,
    body text,
    timestamp timestamptz,
    received_event_id text,
    status text,
    status_at timestamptz,
    status_event_id text,
    last_event_at timestamptz,
    last_event_id text NOT NULL,
    CONSTRAINT messages_pkey PRIMARY KEY (message_id)
);
CREATE INDEX messages_conversation_id ON messages (conversation_id);

CREATE TABLE conversations (
    conversation_id bigint NOT NULL,
    contact_id bigint,
    phone_number text,
    created_at timestamptz,
    created_event_id text,
    status text,
    updated_at timestamptz,
    updated_event_id text,
    last_event_at timestamptz,
    last_event_id text NOT NULL,
    CONSTRAINT conversations_pkey PRIMARY KEY (conversation_id)
);

CREATE TABLE orders (
    order_id bigint NOT NULL,
    conversation_id bigint,
    total numeric,
    currency text,
    created_at timestamptz,
    created_event_id text,
    status text,
    updated_at timestamptz,
    updated_event_id text,
    last_event_at timestamptz,
    last_event_id text NOT NULL,
    CONSTRAINT orders_pkey PRIMARY KEY (order_id)
);
CREATE INDEX orders_conversation_id ON orders (conversation_id);

CREATE TABLE order_status_changes (
    order_id bigint NOT NULL,
    event_id text NOT NULL,
    old_status text,
    new_status text,
    updated_at timestamptz,
    CONSTRAINT order_status_changes_pkey PRIMARY KEY (order_id, event_id)
);

CREATE TABLE contacts (
    contact_id bigint NOT NULL,
    name text,
    phone text,
    email text,
    contact_group_id bigint,
    is_favorite boolean,
    avatar text,
    created_at timestamptz,
    updated_at timestamptz,
    versions jsonb NOT NULL,
    last_event_at timestamptz,
    last_event_id text NOT NULL,
    CONSTRAINT contacts_pkey PRIMARY KEY (contact_id)
);
COMMENT ON COLUMN contacts.versions IS 'per field, what set it';
"""
