"""Is a robust accuracy real? Independent tests, what an expert would try next, and a verdict with its evidence."""
