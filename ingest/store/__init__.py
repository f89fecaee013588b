"""PostgreSQL, the truth: the schema and every statement on it, each beside the row it returns."""
