"""The real center and the real edges on one machine, on public data, against published figures."""
