"""Releases: export, gate, rings, and the way back."""
