"""The vectors of `tests/vectors`: a known round, its faults, and the program that records them."""
