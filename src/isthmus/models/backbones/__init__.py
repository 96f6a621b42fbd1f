"""Backbones, and the bottleneck assemblies around them."""
