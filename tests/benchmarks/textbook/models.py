"""The tables, by SQLAlchemy's ORM guide."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The declarative base."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own name for it
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
    }


class WebhookEvent(Base):
    """A delivery as it came, and whether it was processed."""

    __tablename__ = "webhook_events"

    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[str] = mapped_column(unique=True)
    type: Mapped[str]
    payload: Mapped[dict[str, Any]]
    received_at: Mapped[datetime] = mapped_column(server_default=func.now())
    status: Mapped[str] = mapped_column(default="received")
    processed_at: Mapped[datetime | None]


class Message(Base):
    """A message, kept from its event."""

    __tablename__ = "textbook_messages"

    message_id: Mapped[str] = mapped_column(primary_key=True)
    conversation_id: Mapped[int] = mapped_column(BigInteger)
    from_number: Mapped[str]
    to_number: Mapped[str]
    type: Mapped[str]
    body: Mapped[str]
    timestamp: Mapped[datetime]
