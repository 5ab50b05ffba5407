"""Which runner a job gets, and with how many workers."""

import pytest
from apache_beam.options.pipeline_options import DirectOptions, StandardOptions

from pipeline.local.runner import is_local, pipeline_options


@pytest.mark.parametrize("flags", [[], ["--runner=FnApiRunner"], ["--runner", "FnApiRunner"], ["--s3_region_name=x"]])
def test_the_local_runner_has_the_jobs_workers_under_each_of_its_names(flags):
    options = pipeline_options(3, flags)
    assert is_local(options) and options.view_as(StandardOptions).runner == "FnApiRunner"
    assert options.view_as(DirectOptions).direct_num_workers == 3


def test_a_number_of_workers_among_the_flags_wins():
    options = pipeline_options(3, ["--runner", "FnApiRunner", "--direct_num_workers", "2"])
    assert options.view_as(DirectOptions).direct_num_workers == 2


@pytest.mark.parametrize("flags", [["--runner=FlinkRunner"], ["--runner", "FlinkRunner"]])
def test_another_runner_is_not_local(flags):
    options = pipeline_options(3, flags)
    assert not is_local(options) and options.view_as(StandardOptions).runner == "FlinkRunner"
