"""Backward-pass approximation (BPDA, Athalye et al. 2018): useful gradients for operations that have none."""
