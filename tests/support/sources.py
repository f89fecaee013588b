"""Sources for tests, without settings from outside."""

from pydantic import SecretStr

from ingest.sources.awalchat.source import AwalChat
from ingest.sources.base import Headers, SourceSettings, WebhookRequest


def awalchat(*secrets: str) -> AwalChat:
    """Return the source with these secrets, newest first."""
    return AwalChat(SourceSettings(secrets=tuple(SecretStr(secret) for secret in secrets)))


def posted(headers: Headers, body: bytes, *, target: str = "/webhooks/awalchat") -> WebhookRequest:
    """Return a request as a source sees it."""
    return WebhookRequest("POST", target, headers, body)
