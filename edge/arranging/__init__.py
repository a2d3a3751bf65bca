"""What stands where in an answer, and why: scenarios, boosts, rules, diversity, exploration, promotions."""
