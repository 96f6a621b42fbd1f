"""What is watched while a model trains: one file an observer, each usable on any model."""
