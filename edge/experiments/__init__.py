"""A/B tests on this site's own visitors: who sees which arm, what came of it, and what may be concluded."""
