"""Pages about a data set, one file each; `jobs/browser/sections.py` lists them."""
