"""Which runner a job gets, and with how many workers."""

import os
import socket

import pytest
from apache_beam.options.pipeline_options import DirectOptions, StandardOptions

from pipeline.execution import pipeline_options
from pipeline.local.runner import check_loopback, connect_locally_without_proxy, is_local


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


def test_an_error_says_that_processes_of_this_machine_cannot_connect_to_each_other(monkeypatch):
    def refuse(*_, **__):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)  # as it is after `unshare -n`
    with pytest.raises(
        ConnectionError, match="--num-workers 2: a process cannot connect .*unreachable.* --num-workers 1"
    ):
        check_loopback(2)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "localhost,127.0.0.1,::1"),
        ({"no_proxy": "a.org,localhost"}, "a.org,localhost,127.0.0.1,::1"),
        ({"no_proxy": "a.org", "no_grpc_proxy": "b.org"}, "b.org,localhost,127.0.0.1,::1"),
    ],
)
def test_only_grpc_is_told_to_use_no_proxy_for_this_machine(monkeypatch, before, after):
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("http_proxy", "http://proxy:1")
    for _ in range(2):
        connect_locally_without_proxy()
    assert os.environ.pop("no_grpc_proxy") == after
    assert os.environ.get("no_proxy") == before.get("no_proxy") and os.environ["http_proxy"] == "http://proxy:1"
