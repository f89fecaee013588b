"""Traces of admissions and attempts. Only `workers.tracing.base` may be imported while they are
off."""
