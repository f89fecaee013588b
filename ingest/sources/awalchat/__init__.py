"""AwalChat, a WhatsApp Business platform."""

from ingest.sources.awalchat.source import AwalChat as Plugin

__all__ = ["Plugin"]
