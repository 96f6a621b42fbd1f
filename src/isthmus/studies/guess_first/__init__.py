"""Guess First to Enable Better Compression and Adversarial Robustness (arXiv 2001.03311)."""
