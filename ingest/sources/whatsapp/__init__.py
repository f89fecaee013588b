"""Meta's WhatsApp Cloud API."""

from ingest.sources.whatsapp.source import WhatsApp as Plugin

__all__ = ["Plugin"]
