"""Beam's flags, the words after `--`: a misspelled one is an error. Beam itself ignores a flag that it does not know."""

import difflib
from collections.abc import Collection, Sequence
from typing import NoReturn

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions, _BeamArgumentParser
from apache_beam.runners import create_runner
from apache_beam.runners.runner import PipelineRunner

from bertloom.extras import needed_by

_SIMILAR = 0.8
"""Similarity from which a flag is taken for a misspelled one: --job_endpont is, --checkpointing_interval is not."""


def check_flags(flags: Sequence[str], known_to_engine: Collection[str] | None = ()) -> None:
    """Raise ValueError if one of Beam's flags is unknown or has a wrong value.

    known_to_engine: names of more flags, without the dashes. None if the engine has yet to name them: then only a flag that
        is similar to one of Beam's is an error.
    """
    parser = _Parser(allow_abbrev=False)
    for options in {str(cls): cls for cls in PipelineOptions.__subclasses__()}.values():
        options._add_argparse_args(parser)
    _, unknown = parser.parse_known_args(list(flags))
    for word in unknown:
        if not word.startswith("--"):
            if word == unknown[0]:
                raise ValueError(f"{word!r}, after --, is not a flag of Beam: expected --NAME=VALUE")
            continue  # the value of an unknown flag
        name = word.partition("=")[0]
        if known_to_engine is not None and name[2:] in known_to_engine:
            continue
        names = [option for action in parser._actions for option in action.option_strings if option != "--help"]
        near = difflib.get_close_matches(name, names, n=1, cutoff=_SIMILAR)
        if near or known_to_engine is not None:
            names = difflib.get_close_matches(name, [*names, *(f"--{one}" for one in known_to_engine or ())], n=1)
            advice = f"did you mean {names[0]}?" if names else "expected one of Beam's flags, such as --runner"
            raise ValueError(f"{name}, after --, is not a flag of Beam or of this runner: {advice}")


class _Parser(_BeamArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"after --: {message.removeprefix('argument ')}")


def names_runner(options: PipelineOptions, name: str) -> bool:
    """Return whether --runner names this runner, such as `dask`, in one of the forms that Beam accepts."""
    runner = options.view_as(StandardOptions).runner or ""
    return bool(runner.rpartition(".")[2].lower().removesuffix("runner") == name)


def make_runner(options: PipelineOptions) -> PipelineRunner:
    """Return the runner that --runner names; ValueError if there is none."""
    name = options.view_as(StandardOptions).runner
    if names_runner(options, "dask"):  # Beam's own loses records
        with needed_by(f"--runner={name}"):
            from pipeline.remote.dask import DaskRunner
        return DaskRunner()
    try:
        return create_runner(name)
    except ImportError as error:
        if names_runner(options, "dataflow"):
            raise ValueError(
                f"--runner={name} needs Beam's packages for Google Cloud: install bertloom[gcp]"
            ) from error
        raise ValueError(f"--runner={name}: {error}") from error
    except (ValueError, AttributeError):
        known = [*StandardOptions.KNOWN_RUNNER_NAMES, "DaskRunner"]
        folded = {one.lower(): one for one in known}
        near = difflib.get_close_matches(name.lower(), folded, n=1)
        advice = f"did you mean {folded[near[0]]}?" if near else f"expected one of {', '.join(sorted(known))}"
        raise ValueError(f"--runner={name}: no runner has this name; {advice}") from None
