"""The command line: `ingest COMMAND`. Each group of commands has a module; `main` registers all."""
