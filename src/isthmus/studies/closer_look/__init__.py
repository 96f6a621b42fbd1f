"""Korshunova et al. 2021, "A Closer Look at the Adversarial Robustness of Information Bottleneck Models", by figure."""
