"""A run folder as the pages need it."""

from pathlib import Path


class BrowsedRun:
    """A run folder, which may grow while it is shown."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.location = str(path)
        self.name = path.resolve().name
