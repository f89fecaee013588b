"""Zoom, the meetings and the phone."""

from ingest.sources.zoom.source import Zoom as Plugin

__all__ = ["Plugin"]
