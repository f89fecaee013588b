"""PostgreSQL on a disk whose power is cut: what was answered 200 must be there afterwards."""
