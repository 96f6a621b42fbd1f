"""Plain data, files, configuration and randomness that every other package builds on."""
