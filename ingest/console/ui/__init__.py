"""How the console shows values, and what it reads of paths and forms."""
