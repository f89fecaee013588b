"""Who may do what in the console: the door that every request goes through, and its parts."""
