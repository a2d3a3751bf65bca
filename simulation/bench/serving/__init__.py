"""`hanse-sim bench serving`: the query service against its own parts, on one core, over real HTTP."""
