"""Ending a processor that takes too long, and running many on threads."""
