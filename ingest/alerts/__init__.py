"""Alerts: rules on the state of the pipeline, and the messages that they send."""
