"""Metrics for Prometheus: what there is, and how a process serves it."""
