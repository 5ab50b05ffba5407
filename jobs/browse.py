"""Open data sets and runs in a web browser, on this machine.

    bertloom browse DATASET
    bertloom browse RUN OTHER_RUN

It prints the address of a page and opens it. The pages show the examples of a data set, where each comes from, and what
was left out. They also show runs, with their curves, while they train. Nothing is changed. Only programs that know the
address can read the pages, because it has a random part. By default only this machine can reach it. Ctrl-C ends the command.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jobs.support.config import parse

LOCAL = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class BrowseConfig:
    """Open data sets and runs in a web browser, on this machine."""

    paths: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Data sets, runs, and models in transformers' form. A data set may be a URL, such as s3://bucket/english."""
    port: int = 0
    """TCP port. 0 takes a free one."""
    open: bool = True
    """Open the page in the default browser of this machine."""
    host: str = LOCAL
    """Address to listen on. With another one than 127.0.0.1, everybody who can reach this machine and learns the address of
    the pages can read the data. The connection is not encrypted."""
    cache_dir: Path | None = None
    """Folder for what is read from a URL, as in `pretrain`. Default: ~/.cache/bertloom."""
    cache_gb: float = 50.0
    """Size of this folder, in 10^9 bytes."""


def main(argv: Sequence[str]) -> None:
    config = parse(BrowseConfig, argv, prog="bertloom browse")
    from jobs.browser.app import build_app, new_token
    from jobs.browser.server import serve
    from jobs.browser.targets import Targets

    if not config.paths:
        raise ValueError("give at least one data set or run: bertloom browse DATASET_OR_RUN")
    if not 0 <= config.port < 65536:
        raise ValueError(f"--port {config.port}: expected 0 to 65535")
    targets = Targets.open(config.paths, config.cache_dir, config.cache_gb)
    serve(build_app(targets, new_token(), config.host), config.host, config.port, opens=config.open)
