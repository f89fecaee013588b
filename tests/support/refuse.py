"""A database that takes no more connections."""

import threading

import psycopg
from sqlalchemy import Engine, event


def refuse_connections(engine: Engine, count: int) -> threading.Event:
    """Refuse the next `count` connections of `engine`; what is returned is set once all were."""
    left, all_of_them = threading.Semaphore(count), threading.Event()
    refused = iter(range(1, count + 1))

    def refuse(*_: object) -> None:
        if left.acquire(blocking=False):
            if next(refused) == count:
                all_of_them.set()
            raise psycopg.OperationalError("sorry, too many clients already")

    event.listen(engine, "do_connect", refuse)
    return all_of_them
