"""Which types and which sources there are, from step to step through an index (see
ingest.store.loose_scan); parts of statements that begin `WITH RECURSIVE`."""

TYPES = """
    known AS (
        (SELECT type FROM ingest.events ORDER BY type LIMIT 1)
        UNION ALL
        SELECT (SELECT type FROM ingest.events WHERE type > known.type ORDER BY type LIMIT 1)
        FROM known WHERE known.type IS NOT NULL
    )
"""
SOURCES = """
    origin AS (
        (SELECT source AS slug FROM ingest.events ORDER BY source LIMIT 1)
        UNION ALL
        SELECT (SELECT e.source FROM ingest.events e WHERE e.source > origin.slug
                ORDER BY e.source LIMIT 1)
        FROM origin WHERE origin.slug IS NOT NULL
    )
"""
