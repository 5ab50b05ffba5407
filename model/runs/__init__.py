"""A training as it goes: its folder, its checkpoints, how it goes on, and what it tells."""
