"""The engine under every attack: scheduling, verification, state, and faster copies of the model."""
