"""Shards to packed batches: where they lie, in which order they are read, and proof of what was read."""
