"""What a job may hold that goes to other machines, where many people can read it: no secret, and no path of this machine."""

import os
import sys
from typing import Any

from apache_beam.internal import cloudpickle_pickler
from apache_beam.options.pipeline_options import DebugOptions, PipelineOptions, SetupOptions, StandardOptions

_SECRETS = {
    "s3_secret_access_key": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "s3_session_token": "AWS_SESSION_TOKEN",
    "azure_connection_string": "AZURE_STORAGE_CONNECTION_STRING",
}
"""Beam's flags that are secrets, and the variables of the environment that take their place."""


def check_secrets(options: PipelineOptions) -> None:
    """Raise ValueError if a secret is among the flags: a runner shows them, and keeps them with the job."""
    given = options.get_all_options(drop_default=True)
    for flag, variables in _SECRETS.items():
        if flag in given:
            raise ValueError(
                f"--{flag} with --runner={options.view_as(StandardOptions).runner}: everybody who can see the job there can "
                f"read its flags. Leave it out, and give it to this command and to the workers in their environment, as "
                f"{variables}, or as a role of the machines"
            )


def leave_out_this_machine(options: PipelineOptions) -> None:
    """Keep what is about this machine out of the jobs that this process builds from now on.

    Beam pickles some functions with the path of their module, for tracebacks. It stages the output of `pip freeze`, which
    names the folders of packages, and for Dataflow a pickle of what the main module registered, which no stage needs.
    """
    pickling: Any = cloudpickle_pickler.DEFAULT_CONFIG
    pickling.filepath_interceptor = path_in_packages
    options.view_as(DebugOptions).add_experiment("disable_logging_submission_environment")
    setup = options.view_as(SetupOptions)
    if setup.save_main_session is None:
        setup.save_main_session = False


def path_in_packages(path: str) -> str:
    """Return a module's path from the folder in which imports found it, which is the same on all machines.

    >>> path_in_packages("/home/me/venv/lib/python3.12/site-packages/apache_beam/transforms/core.py")
    'apache_beam/transforms/core.py'
    """
    folders = [folder for entry in sys.path if path.startswith(folder := os.path.join(os.path.abspath(entry), ""))]
    return path[len(max(folders, key=len)) :] if folders else os.path.basename(path)
