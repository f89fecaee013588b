"""The relay: finds work that nobody holds, in PostgreSQL, and keeps the database tidy."""
