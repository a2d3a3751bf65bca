"""Rounds: what this site answers, and what it refuses."""
