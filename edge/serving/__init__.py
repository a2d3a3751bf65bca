"""The HTTP service of an edge. Never imports torch or flwr: it starts in a second and fits in a till."""
