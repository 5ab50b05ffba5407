"""Masking schemes: one file each behind one interface."""
