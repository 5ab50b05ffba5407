"""Quality filters, one per file; `registry.py` lists them."""
