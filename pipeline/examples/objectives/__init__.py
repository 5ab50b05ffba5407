"""Pair objectives: one file each behind one interface."""
