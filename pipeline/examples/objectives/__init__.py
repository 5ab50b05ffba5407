"""Pair objectives: one file each, with one interface and one registry."""
