"""What a site writes down: events, items and users, in one SQLite file that never leaves it."""
