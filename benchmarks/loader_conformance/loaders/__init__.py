"""The loaders that are compared: one file each."""
