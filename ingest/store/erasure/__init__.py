"""What an erasure reads and writes in the database."""
