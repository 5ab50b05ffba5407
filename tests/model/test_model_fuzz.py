"""Mutants of runs, model directories, TensorFlow checkpoints and presets: `model_mutants` makes and uses them."""

import pytest

from tests.model.model_mutants import TARGETS, faults


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_no_mutant_ends_in_a_signal_a_traceback_or_a_hang(target, tmp_path):
    assert list(faults(target, 200, 7, tmp_path)) == []
