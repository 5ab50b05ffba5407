"""Beam's flags, after `--`: what Beam does not know, or would ignore, is an error that names the nearest flag."""

import pytest

from pipeline.execution import pipeline_options
from pipeline.remote.flags import check_flags


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--job_endpont=x"],
            "--job_endpont, after --, is not a flag of Beam or of this runner: did you mean --job_",
        ),
        (["--job-endpoint", "x"], "did you mean --job_endpoint?"),
        (["runner=FlinkRunner"], "'runner=FlinkRunner', after --, is not a flag of Beam: expected --NAME=VALUE"),
        (["-runner=FlinkRunner"], "'-runner=FlinkRunner', after --, is not a flag of Beam: expected --NAME=VALUE"),
        (["--parallelism=many"], "after --: --parallelism: invalid int value: 'many'"),
        (["--runner"], "after --: --runner: expected one argument"),
        (["--no_such_thing=1"], "--no_such_thing, after --, is not a flag of Beam"),
        (["--runner=FlinkRuner"], "--runner=FlinkRuner: no runner has this name; did you mean FlinkRunner?"),
        (["--runner=Nothing"], "--runner=Nothing: no runner has this name; expected one of "),
        (["--runner=no.such.Runner"], "--runner=no.such.Runner: No module named 'no'"),
    ],
)
def test_a_wrong_flag_is_an_error_before_anything_is_read(flags, said):
    with pytest.raises(ValueError) as error:
        pipeline_options(1, flags)
    assert said in str(error.value)


def test_flags_that_only_the_job_server_knows_are_not_misspelled_ones():
    flags = ["--checkpointing_interval=1000", "--object_reuse"]
    check_flags(flags, None)
    check_flags(flags, ["checkpointing_interval", "object_reuse"])
    with pytest.raises(ValueError, match="--object_reuse, after --, is not a flag of Beam or of this runner"):
        check_flags(flags, ["checkpointing_interval"])
    with pytest.raises(ValueError, match="did you mean --object_reuse"):
        check_flags(["--objct_reuse"], ["object_reuse"])
