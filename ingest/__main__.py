"""`python -m ingest` is `ingest`."""

from ingest.cli.main import main

main()
