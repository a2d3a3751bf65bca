"""The broker, and what the center puts on it."""
