"""Fischer & Alemi 2020, "CEB Improves Model Robustness", and Fischer 2020, "The Conditional Entropy Bottleneck"."""
