"""Fixtures: a small data set, and small models."""

import os
from pathlib import Path

import pytest

# Before torch is loaded: its threads then sleep while they wait (see jobs/pretrain.py); tests run beside other work.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from tests.model.synthetic import write_data_set


@pytest.fixture(scope="session")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of two copies of two lengths; never written to."""
    return write_data_set(tmp_path_factory.mktemp("data") / "set", max_seq_lengths=(32, 64))
