"""Dataflow: what its flags must say, and the description of a job that is built and checked but not submitted."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    TestOptions,
    WorkerOptions,
)
from apache_beam.runners.runner import PipelineResult

from bertloom import storage
from bertloom.extras import needs
from pipeline.remote.flags import names_runner

_REQUIRED = {"project": "PROJECT_ID", "region": "REGION, such as europe-west1", "temp_location": "gs://BUCKET/tmp"}
_PACKAGES = ("google.cloud.dataflow", "google.cloud.storage", "google_auth_httplib2")


def is_dry_run(options: PipelineOptions) -> bool:
    """Return whether the job is to be built and checked only. ValueError where --dry_run cannot be followed."""
    given = options.view_as(TestOptions).dry_run
    if given in (False, None):
        return False
    if str(given).lower() not in ("true", "false"):
        raise ValueError(f"--dry_run={given}: expected True or False")
    if not names_runner(options, "dataflow"):
        raise ValueError(
            f"--dry_run={given}: only Dataflow has dry runs, and another runner would start the job; leave it out, or give "
            f"--runner=DataflowRunner"
        )
    return str(given).lower() == "true"


def check_dataflow(options: PipelineOptions, places: Mapping[str, Iterable[str]]) -> None:
    """Raise ValueError if a job for Dataflow lacks something that would end it only after its machines have started.

    places: flag of bertloom -> the files, folders and patterns that it names.
    """
    if not names_runner(options, "dataflow"):
        return
    if not all(map(_is_installed, _PACKAGES)):
        raise ValueError(needs("--runner=DataflowRunner", "gcp"))
    google, setup = options.view_as(GoogleCloudOptions), options.view_as(SetupOptions)
    for flag, value in _REQUIRED.items():
        if getattr(google, flag) is None:
            raise ValueError(f"--runner=DataflowRunner needs --{flag}={value}")
    if google.template_location:
        raise ValueError(
            f"--template_location={google.template_location}: a template is started without bertloom, which must list the "
            f"inputs before a job and check the data set after it. To see the job, give --dry_run=True "
            f"--dataflow_job_file=FILE instead"
        )
    image = options.view_as(WorkerOptions).sdk_container_image
    if not (image or setup.setup_file or setup.extra_packages or setup.requirements_file):
        raise ValueError(
            "--runner=DataflowRunner: the workers would run in Beam's own image, which lacks bertloom. Give "
            "--sdk_container_image=IMAGE (docs/on-a-cluster.md says how to build it)"
        )
    for flag, paths in places.items():
        for path in paths:
            if storage.is_local(path):
                raise ValueError(
                    f"{flag} {path}: is on this machine, where the workers of Dataflow cannot reach it. Copy it to a store, "
                    f"and give its URL, such as gs://BUCKET/texts"
                )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package above it is missing
        return False


def name_job(options: PipelineOptions, command: str, output: str) -> None:
    """Name the job after its output, unless --job_name does. Dataflow runs one job of a name at a time."""
    google = options.view_as(GoogleCloudOptions)
    if not google.job_name:
        google.job_name = f"bertloom-{command}-{hashlib.sha256(output.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class JobDescription:
    """What Dataflow would be sent."""

    name: str
    job: bytes
    """The request: JSON."""
    graph: bytes
    """The pipeline: a serialized proto of Beam, which the request names."""

    def write(self, path: str) -> list[str]:
        """Write both files and return their paths. path: of the request. The pipeline's path begins with it."""
        files = {path: self.job, f"{path}.pipeline.pb": self.graph}
        for name, content in files.items():
            storage.write_whole(name, [content])
        return list(files)


def describe(result: PipelineResult) -> JobDescription:
    """Return what Dataflow would be sent for a pipeline that was run with --dry_run. Nothing is sent to anybody.

    The options that the pipeline was run with cannot be used again.
    """
    from apache_beam.runners.dataflow.internal import apiclient
    from apache_beam.runners.internal.names import STAGED_PIPELINE_FILENAME

    job: Any = getattr(result, "job")  # noqa: B009  of a dry run only
    # These are for the launcher: the workers need neither, and one is a path of this machine.
    job.options.view_as(TestOptions).dry_run = False
    job.options.view_as(DebugOptions).dataflow_job_file = None
    google = job.google_cloud_options
    no_auth, google.no_auth = google.no_auth, True  # otherwise the client looks for credentials, on the network, too
    client: Any = apiclient.DataflowApplicationClient(job.options)
    google.no_auth = no_auth
    staged: dict[str, bytes] = {}
    client.stage_file = lambda _, name, stream, *more: staged.update({name: stream.read()})
    client.create_job_description(job)
    return JobDescription(google.job_name, job.json().encode(), staged[STAGED_PIPELINE_FILENAME])
