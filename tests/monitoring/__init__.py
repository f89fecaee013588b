"""Each alert rule on a real Prometheus that scrapes real processes: it fires on its fault, and
recovers."""
