"""A sender to try the pipeline with: a shop's events, sent by AwalChat's documented rules.

It stands outside: nothing here is imported by what receives, stores or works.
"""
