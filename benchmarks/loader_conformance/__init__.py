"""Loaders that stop and resume: do they read the same rows in the same global batches? See docs/loader-conformance.md."""
