"""What becomes of jobs whose worker is gone."""
