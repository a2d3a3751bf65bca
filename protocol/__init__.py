"""What center and edges must agree on: no I/O, no clock, no hidden randomness. The contract is SPEC.md."""
