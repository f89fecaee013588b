"""The channels: how a message gets to people or programs."""
