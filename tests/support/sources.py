"""Sources for tests, without settings from outside."""

from pydantic import SecretStr

from ingest.sources.awalchat.source import AwalChat
from ingest.sources.base import SourceSettings


def awalchat(*secrets: str) -> AwalChat:
    """Return the source with these secrets, newest first."""
    return AwalChat(SourceSettings(secrets=tuple(SecretStr(secret) for secret in secrets)))
