"""What events concern: one order, one customer, one conversation, with all that is stored of it."""
