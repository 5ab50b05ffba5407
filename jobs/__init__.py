"""The commands: one file each, and the only place where `pipeline` and `model` meet. Nothing imports this package."""
