"""What pages and API share: commands, queries, and what runs in the background."""
