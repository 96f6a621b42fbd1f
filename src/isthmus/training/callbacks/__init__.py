"""What is watched while a model trains: one file a callback, each usable on any model."""
