"""A module with limited processors, as an acceptance test plugs it in."""

import time

from sqlalchemy import Connection, text

from workers import Event, processor


@processor("order.created", name="rated", rate="25/s")
def rated(event: Event, db: Connection) -> None:
    """Keeps when it ran."""
    db.execute(text("INSERT INTO ran VALUES ('rated', clock_timestamp(), clock_timestamp())"))


@processor("order.created", name="few", concurrency=2, limit_by="order_id", key_concurrency=1)
def few(event: Event, db: Connection) -> None:
    """Keeps when it ran, which takes a while."""
    began = db.execute(text("SELECT clock_timestamp()")).scalar_one()
    time.sleep(0.02)
    db.execute(text("INSERT INTO ran VALUES ('few', :began, clock_timestamp())"), {"began": began})
