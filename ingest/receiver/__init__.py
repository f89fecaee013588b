"""The receiver: takes requests of senders, verifies them, stores them, answers them."""
