"""Rounds: ask a question of a cohort, sum what it says, take the step."""
