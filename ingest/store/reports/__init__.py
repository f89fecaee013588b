"""What the console and the command line show beside events."""
