"""Create the read model of WhatsApp's Cloud API, if the read model's tables are wanted."""

from alembic import context, op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None
oldest_code = "0005"
"""Code of this revision still runs on the schema: tables are added, which it does not know."""


def upgrade() -> None:
    if context.config.attributes["read_model"]:
        op.execute(SCHEMA)
    op.execute(f"INSERT INTO revisions VALUES ('{revision}', '{oldest_code}')")


def downgrade() -> None:
    op.execute(f"DELETE FROM revisions WHERE revision = '{revision}'")
    op.execute(f"DROP TABLE IF EXISTS {', '.join(TABLES)}")


TABLES = (
    "whatsapp_messages",
    "whatsapp_message_statuses",
    "whatsapp_identities",
    "whatsapp_contacts",
    "whatsapp_templates",
    "whatsapp_accounts",
)
SCHEMA = """
CREATE TABLE whatsapp_messages (
    message_id text NOT NULL,
    direction text,
    waba_id text,
    phone_number_id text,
    contact_user_id text,
    contact_phone text,
    group_id text,
    type text,
    text text,
    media_id text,
    mime_type text,
    sha256 text,
    filename text,
    reply_to text,
    content jsonb,
    timestamp timestamptz,
    received_event_id text,
    status text,
    status_at timestamptz,
    status_event_id text,
    error_code bigint,
    error_title text,
    error_details text,
    failed_at timestamptz,
    failed_event_id text,
    last_event_at timestamptz,
    last_event_id text NOT NULL,
    versions jsonb,
    CONSTRAINT whatsapp_messages_pkey PRIMARY KEY (message_id)
);
CREATE INDEX whatsapp_messages_contact_user_id ON whatsapp_messages (contact_user_id);
CREATE INDEX whatsapp_messages_contact_phone ON whatsapp_messages (contact_phone);
COMMENT ON COLUMN whatsapp_messages.direction IS 'inbound or outbound';
COMMENT ON COLUMN whatsapp_messages.waba_id IS 'the business account';
COMMENT ON COLUMN whatsapp_messages.phone_number_id IS 'the number of the business';
COMMENT ON COLUMN whatsapp_messages.contact_user_id IS 'business-scoped';
COMMENT ON COLUMN whatsapp_messages.contact_phone IS 'digits';
COMMENT ON COLUMN whatsapp_messages.text IS 'text, caption, or the title of what was chosen';
COMMENT ON COLUMN whatsapp_messages.reply_to IS 'the message that it answers or reacts to';
COMMENT ON COLUMN whatsapp_messages.content IS 'the whole object that is named after the type';
COMMENT ON COLUMN whatsapp_messages.versions
    IS 'per field, what set it; null: the event ids and times say so';

CREATE TABLE whatsapp_message_statuses (
    message_id text NOT NULL,
    event_id text NOT NULL,
    status text NOT NULL,
    at timestamptz,
    recipient_user_id text,
    recipient_phone text,
    error_code bigint,
    error_title text,
    error_details text,
    pricing_category text,
    pricing_model text,
    callback_data text,
    CONSTRAINT whatsapp_message_statuses_pkey PRIMARY KEY (message_id, event_id)
);
COMMENT ON COLUMN whatsapp_message_statuses.callback_data IS 'what was attached when it was sent';

CREATE TABLE whatsapp_identities (
    identity text NOT NULL,
    contact_id text,
    successor text,
    phone text,
    name text,
    username text,
    parent_user_id text,
    versions jsonb NOT NULL,
    last_event_at timestamptz,
    last_event_id text NOT NULL,
    CONSTRAINT whatsapp_identities_pkey PRIMARY KEY (identity)
);
CREATE INDEX whatsapp_identities_contact_id ON whatsapp_identities (contact_id);
COMMENT ON COLUMN whatsapp_identities.identity IS 'a business-scoped user id, or digits';
COMMENT ON COLUMN whatsapp_identities.contact_id IS 'whose it is: the end of the successors';
COMMENT ON COLUMN whatsapp_identities.successor IS 'the identity that took its place';
COMMENT ON COLUMN whatsapp_identities.versions IS 'per field, what set it';

CREATE TABLE whatsapp_contacts (
    contact_id text NOT NULL,
    user_id text,
    phone text,
    name text,
    username text,
    parent_user_id text,
    last_event_at timestamptz,
    last_event_id text NOT NULL,
    CONSTRAINT whatsapp_contacts_pkey PRIMARY KEY (contact_id)
);
CREATE INDEX whatsapp_contacts_phone ON whatsapp_contacts (phone);
COMMENT ON COLUMN whatsapp_contacts.contact_id IS 'the user id, or the phone number';
COMMENT ON COLUMN whatsapp_contacts.user_id
    IS 'business-scoped; null: only a phone number is known';
COMMENT ON COLUMN whatsapp_contacts.phone IS 'digits; null: not known';

CREATE TABLE whatsapp_templates (
    template_id text NOT NULL,
    waba_id text,
    name text,
    language text,
    status text,
    reason text,
    quality text,
    category text,
    correct_category text,
    components jsonb,
    versions jsonb NOT NULL,
    last_event_at timestamptz,
    last_event_id text NOT NULL,
    CONSTRAINT whatsapp_templates_pkey PRIMARY KEY (template_id)
);
COMMENT ON COLUMN whatsapp_templates.components IS 'the last change of its parts';
COMMENT ON COLUMN whatsapp_templates.versions IS 'per field, what set it';

CREATE TABLE whatsapp_accounts (
    waba_id text NOT NULL,
    field text NOT NULL,
    subject text NOT NULL,
    value jsonb NOT NULL,
    at timestamptz,
    event_id text NOT NULL,
    CONSTRAINT whatsapp_accounts_pkey PRIMARY KEY (waba_id, field, subject)
);
COMMENT ON COLUMN whatsapp_accounts.field IS 'account_update, errors, …';
COMMENT ON COLUMN whatsapp_accounts.subject IS 'the number that it is about; empty: none';
COMMENT ON COLUMN whatsapp_accounts.value IS 'as it was sent last';
"""
