"""Search over what this site sells: an index in a folder of its own, and what is asked of it."""
