"""The built-in read model: one row an entity, so that a user can simply query it.

The rows depend on the set of events only, not on their order or repeats: every column belongs to
a group, every event that speaks of a group has a place in that group's order, and the last one's
values stay. Folding a batch (merge.Entities) and merging it with the table (merge.upsert) use the
same order."""

from workers.processors import (
    contacts,
    conversations,
    messages,
    orders,
    whatsapp_accounts,
    whatsapp_contacts,
    whatsapp_messages,
    whatsapp_templates,
)

__all__ = [
    "contacts",
    "conversations",
    "messages",
    "orders",
    "whatsapp_accounts",
    "whatsapp_contacts",
    "whatsapp_messages",
    "whatsapp_templates",
]
