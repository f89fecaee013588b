"""The command line: `ingest COMMAND`. One module a group of commands, wired in `main`."""
