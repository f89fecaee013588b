"""Finding, listing and counting events."""
