"""Twilio: messages and calls."""

from ingest.sources.twilio.source import Twilio as Plugin

__all__ = ["Plugin"]
