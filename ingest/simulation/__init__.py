"""A sender to try the pipeline with: events as they happen, sent by the sender's documented rules.

It stands outside: nothing here is imported by what receives, stores or works.
"""
