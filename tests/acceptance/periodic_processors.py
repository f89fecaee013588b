"""A module with periodic processors, as an acceptance test plugs it in."""

from sqlalchemy import Connection, text

from workers import Due, Event, periodic


@periodic("* * * * *", name="minutely", missed="all")
def minutely(event: Event[Due], db: Connection) -> None:
    """Keeps its runs; makes up for each that was missed."""
    keep("minutely", event.data, db)


@periodic("0 0 1 1 *", name="yearly", zone="Asia/Riyadh")
def yearly(event: Event[Due], db: Connection) -> None:
    """Keeps its runs; is due when a test says so."""
    keep("yearly", event.data, db)


def keep(processor: str, due: Due, db: Connection) -> None:
    """Store a run."""
    db.execute(
        text("INSERT INTO runs VALUES (:processor, :due_at, :by_hand)"),
        {"processor": processor, "due_at": due.due_at, "by_hand": due.by_hand},
    )
