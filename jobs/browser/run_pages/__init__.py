"""Pages about runs, one file each; `jobs/browser/sections.py` lists them."""
