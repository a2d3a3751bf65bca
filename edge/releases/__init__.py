"""Releases: fetched, verified, tried out, kept or taken back."""
