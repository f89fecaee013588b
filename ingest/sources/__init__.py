"""The senders: a folder each, and what they share (`base`, `registry`)."""
