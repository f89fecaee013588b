"""A module with periodic processors, as an acceptance test plugs it in."""

from sqlalchemy import Connection, text

from workers import Due, Event, periodic


@periodic("* * * * *", name="minutely", zone="Asia/Riyadh")
def minutely(event: Event[Due], db: Connection) -> None:
    """Keeps its runs."""
    db.execute(
        text("INSERT INTO runs VALUES (:due_at, :by_hand)"),
        {"due_at": event.data.due_at, "by_hand": event.data.by_hand},
    )
