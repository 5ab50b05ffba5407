"""Forms of files of rows: one file per form; registry.py lists them."""
