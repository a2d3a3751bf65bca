"""Almost valid messages for every decoder."""
