"""Failures as records: what fails in one way is a group with a state, notes and releases."""
