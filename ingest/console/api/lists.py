"""The one form of lists, and the cursors that lead from one page to the next."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict

BY_ID = r"^(older|newer)\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
BY_DELIVERY = r"^newer\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
BY_NUMBER = r"^older\.[0-9]{1,18}$"
"""What cursors look like: in lists of events, in those of one's deliveries, and in lists of what is
numbered."""

Item = TypeVar("Item")


class Listing(BaseModel, Generic[Item]):
    """A page of a list."""

    model_config = ConfigDict(frozen=True)

    items: tuple[Item, ...]
    """What the page holds, in the order of the list."""
    next_cursor: str | None
    """The value of `cursor` for the next page; None: this is the last one."""
    as_of: datetime
    """When the page was read, by the console's clock."""

    @classmethod
    def of(cls, items: Iterable[Item], *, as_of: datetime, next_cursor: str | None = None) -> Self:
        """Return a page; without a cursor it is the whole list, or its end."""
        return cls(items=tuple(items), next_cursor=next_cursor, as_of=as_of)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a cursor of events says: which of them are meant, if not the first page."""

    before: UUID | None = None
    after: UUID | None = None


def bounds(cursor: str | None) -> Bounds:
    """Return what a cursor of events says, whose form was checked."""
    direction, _, name = (cursor or "").partition(".")
    if not name:
        return Bounds()
    return Bounds(before=UUID(name)) if direction == "older" else Bounds(after=UUID(name))


def number(cursor: str | None) -> int | None:
    """Return the number that the items of a page are below, whose cursor's form was checked."""
    return None if cursor is None else int(cursor.partition(".")[2])


def older(than: UUID | None) -> str | None:
    """Return the cursor of the events older than one; None stays None."""
    return None if than is None else f"older.{than}"


def newer(than: UUID | None) -> str | None:
    """Return the cursor of the events newer than one; None stays None."""
    return None if than is None else f"newer.{than}"


def after_numbered(records: list[Any], *, limit: int) -> str | None:
    """Return the cursor of the page after `limit` records. One more was read to see whether there
    is one."""
    return f"older.{records[limit - 1].id}" if len(records) > limit else None
