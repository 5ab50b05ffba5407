"""Files to documents: which files there are, where they may be cut, and what they hold."""
