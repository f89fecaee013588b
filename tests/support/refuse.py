"""A database that takes no more connections."""

import itertools
import threading
from typing import Any

import psycopg
from sqlalchemy import Engine, event


def refuse_connections(engine: Engine, count: int) -> threading.Event:
    """Refuse the next `count` connections of `engine`; what is returned is set once all were."""
    all_of_them = threading.Event()
    asked = itertools.count(1)

    def refuse(driver: psycopg.Connection[Any], _record: object) -> None:
        number = next(asked)
        if number > count:
            return
        driver.close()
        if number == count:
            all_of_them.set()
        raise psycopg.OperationalError("sorry, too many clients already")

    event.listen(engine, "connect", refuse)
    return all_of_them
