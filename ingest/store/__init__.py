"""PostgreSQL: the schema, and every statement beside the row that it returns."""
