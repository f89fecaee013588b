"""The image and the compose file, built and run by podman: `python3 dev.py container`."""
