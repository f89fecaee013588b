"""Why requests are refused and deliveries rejected: what the console, the API and commands say."""
