"""Sources for tests, without settings from outside."""

from typing import Any

from pydantic import SecretStr

from ingest.sources.awalchat.source import AwalChat
from ingest.sources.base import Headers, SourceSettings, WebhookRequest
from ingest.sources.described import shipped
from ingest.sources.described.description import Description
from ingest.sources.described.source import DescribedSource, source_class


def awalchat(*secrets: str) -> AwalChat:
    """Return the source with these secrets, newest first."""
    return AwalChat(SourceSettings(secrets=tuple(SecretStr(secret) for secret in secrets)))


def posted(headers: Headers, body: bytes, *, target: str = "/webhooks/awalchat") -> WebhookRequest:
    """Return a request as a source sees it."""
    return WebhookRequest("POST", target, headers, body)


def described(preset: str, *secrets: str, slug: str = "", **more: Any) -> DescribedSource:
    """Return the source of a shipped description, with these secrets, newest first."""
    address = {"url": "https://example.com/webhooks/square"} if preset == "square" else {}
    description = Description.model_validate(shipped.table(preset) | address | more)
    made = source_class(slug or preset, description)
    return made(made.settings(secrets=tuple(SecretStr(secret) for secret in secrets)))
