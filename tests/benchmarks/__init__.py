"""The benchmark suite behind `python3 dev.py bench`."""
