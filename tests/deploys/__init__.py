"""Deploys under load, behind the proxies of `deploy/proxies`: `python3 dev.py deploys`."""
