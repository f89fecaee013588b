"""The read model's tables in the form of the reference (tests.support.reference)."""

from sqlalchemy import Connection, text

from tests.support.reference import KEYS, Model

_OURS = ("versions", "status_at", "sent_at")


def tables(db: Connection) -> Model:
    """What is in the tables."""
    found: Model = {}
    for table, (key, *_) in KEYS.items():
        found[table] = {
            row[key]: {
                name: value
                for name, value in row.items()
                if name not in (key, *_OURS)
                and not name.endswith("_normal")
                and (name == "last_event_id" or not name.endswith("event_id"))
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
