"""The fault suite: real processes under load, broken one way after another, and a table of what
was answered 200, processed, lost and done twice. `python3 dev.py faults`."""
