"""The aggregation server: admits sites, runs rounds, sees only sums, signs and publishes releases."""
