"""The processors of the shop in which the tasks are done. Files say what is wrong with its CRM."""

import time
from pathlib import Path

from sqlalchemy import Connection

from workers import Event, processor


def call_crm(event: Event, hand: str) -> None:
    """Fail while the CRM of a hand is away, and wait while it is slow."""
    if Path(f"away-{hand}").exists():
        raise ConnectionError("the CRM is away")
    while Path(f"slow-{hand}").exists():
        time.sleep(0.02)


@processor("stock.mouse", name="crm_of_mouse", max_attempts=1, timeout_s=600)
def crm_of_mouse(event: Event, db: Connection) -> None:
    call_crm(event, "mouse")


@processor("stock.keyboard", name="crm_of_keyboard", max_attempts=1, timeout_s=600)
def crm_of_keyboard(event: Event, db: Connection) -> None:
    call_crm(event, "keyboard")


@processor("order.created", name="accounts")
def accounts(event: Event, db: Connection) -> None:
    """Always works."""
