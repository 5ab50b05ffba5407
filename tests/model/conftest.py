"""Fixtures: a small data set."""

from pathlib import Path

import pytest

from tests.model.synthetic import write_data_set


@pytest.fixture(scope="session")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of two copies of two lengths; never written to."""
    return write_data_set(tmp_path_factory.mktemp("data") / "set", max_seq_lengths=(32, 64))
