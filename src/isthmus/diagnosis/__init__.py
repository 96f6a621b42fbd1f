"""Is a robust accuracy genuine? Diagnostic tests, follow-up attacks, and a verdict with its evidence."""
