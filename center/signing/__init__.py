"""The TUF repository, and the keys that sign it."""
