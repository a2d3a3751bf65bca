"""The HTTP service: routes, the door before them, and what its OpenAPI says."""
