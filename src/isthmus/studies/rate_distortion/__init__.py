"""The studies of "A Rate-Distortion Theory of Adversarial Examples" (ICLR 2019 submission)."""
