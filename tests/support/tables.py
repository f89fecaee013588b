"""The read model's tables in the form of the reference (tests.support.reference)."""

from sqlalchemy import Connection, text

from tests.support.reference import Model

KEYS = {
    "messages": "message_id",
    "conversations": "conversation_id",
    "orders": "order_id",
    "contacts": "contact_id",
}


def tables(db: Connection) -> Model:
    """What is in the tables."""
    found: Model = {}
    for table, key in KEYS.items():
        found[table] = {
            row[key]: {
                name: value
                for name, value in row.items()
                if name not in (key, "versions", "status_at", "last_event_at")
                and not name.endswith("event_id")
            }
            for row in db.execute(text(f"SELECT * FROM {table}")).mappings()
        }
    found["order_status_changes"] = {
        (row["order_id"], row["event_id"]): {
            name: row[name] for name in ("old_status", "new_status", "updated_at")
        }
        for row in db.execute(text("SELECT * FROM order_status_changes")).mappings()
    }
    return found
