"""Reports that the console and the command line show beside events."""
