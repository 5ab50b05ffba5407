"""The images and scripts for clusters: their form, the flags that they give, and that what they copy and name exists."""

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.dask import dask_runner  # noqa: F401  (its options are Beam's only when it is imported)
from distributed.cli import dask_scheduler, dask_worker

from jobs.preprocess import PreprocessConfig
from jobs.pretrain import PretrainConfig
from jobs.support.config import parse
from jobs.worker_pool import WorkerPoolConfig

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
SCRIPTS = sorted((ROOT / "deploy").glob("*.sh"))
MANIFESTS = sorted((ROOT / "deploy").glob("*.yaml"))
BIN = Path(sys.executable).parent
(BEAM,) = re.findall(r"^apache-beam==(.+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.M)

RECORD = """#!/bin/sh
line=$(basename "$0")
for word in "$@"; do line="$line\t$word"; done
printf '%s\\n' "$line" >> "$RECORD"
"""
"""A command that only writes its words down, in one line."""
DASK = (
    RECORD + 'while [ $# -gt 1 ]; do shift; [ "$1" = --scheduler-file ] && file=$2; done\n'
    '[ "$DASK_FAILS" ] && exit 1\n'
    'case $line in *scheduler*--port*) echo > "$file"; exec sleep 600;; esac\n'
)
"""dask: a scheduler writes its file and runs until it is ended; a worker ends at once."""
AFTER_DASK = RECORD + 'for n in $(seq 300); do [ $(grep -c ^dask "$RECORD") = 2 ] && exit; sleep 0.1; done; exit 1\n'
"""bertloom in a script that ends Dask when bertloom has ended."""
PASS_ON = '#!/bin/sh\n"$0.record" "$@"\nexec "$@"\n'
"""srun on a cluster of one node."""
HOSTS = '#!/bin/sh\n[ "$1 $2" = "show hostnames" ] && printf "node1\\nnode2\\n"\n'
"""scontrol on a cluster of two nodes."""
SETTINGS = {
    "worker-pool.sh": {},
    "spark.sh": {"SPARK_MASTER": "spark://host:7077", "SPARK_JOB_SERVER_JAR": "job server.jar"},
    "dask-slurm.sh": {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "4"},
    "dataflow.sh": {"PROJECT": "p", "REGION": "europe-west1", "BUCKET": "gs://b", "IMAGE": "registry/image:1"},
    "torchrun-slurm.sh": {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node[1-2]"},
}
TEXTS = {"INPUT": "texts/*.jsonl", "VOCAB": "my vocab.txt", "OUT": "books"}
TRAINING = {"DATA": "s3://bucket/books", "RUN": "my run"}


def run_script(script: Path, folder: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a script with commands that write their words down, in `folder`."""
    stubs = folder / "venv/bin"
    stubs.mkdir(parents=True)
    for name in ("bertloom", "torchrun", "python", "srun.record"):
        (stubs / name).write_text(AFTER_DASK if (name, script.name) == ("bertloom", "dask-slurm.sh") else RECORD)
    (stubs / "dask").write_text(DASK)
    (stubs / "srun").write_text(PASS_ON)
    (stubs / "scontrol").write_text(HOSTS)
    for path in stubs.iterdir():
        path.chmod(0o755)
    environment = {"PATH": f"{stubs}{os.pathsep}/usr/bin{os.pathsep}/bin", "RECORD": str(folder / "record")}
    environment |= {"VENV": str(folder / "venv")} | settings
    return subprocess.run([script, *words], cwd=folder, env=environment, capture_output=True, text=True)


def commands_of(script: str, folder: Path, *words: str) -> dict[str, list[str]]:
    """The commands that a script runs, by their first words: {"bertloom preprocess": [...], ...}."""
    done = run_script(ROOT / "deploy" / script, folder, *words, **TEXTS, **TRAINING, **SETTINGS[script])
    assert done.returncode == 0, done.stderr
    commands = [line.split("\t") for line in (folder / "record").read_text("utf-8").splitlines()]
    return {" ".join(command[:2]): command[2:] for command in commands if command[0] != "srun.record"}


def check_preprocess(words: list[str]) -> tuple[PreprocessConfig, dict[str, Any]]:
    """Parse the words of `bertloom preprocess` with our parser and Beam's. Return both results."""
    at = words.index("--")
    config = parse(PreprocessConfig, words[:at], prog="bertloom preprocess")
    parser = argparse.ArgumentParser(allow_abbrev=False, conflict_handler="resolve")
    for kind in PipelineOptions.__subclasses__():
        kind._add_argparse_args(parser)
    options, unknown = parser.parse_known_args(words[at + 1 :])
    assert unknown == []
    return config, vars(options)


# ---- images


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", dockerfile.read_text("utf-8"), flags=re.M))
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_an_image_copies_what_an_installation_needs_and_names_extras_that_exist(dockerfile):
    found = instructions(dockerfile)
    copied = {word for name, words in found if name == "COPY" for word in words.split()[:-1]}
    assert copied >= {"bertloom", "pipeline", "model", "jobs", "bertloom_entry.py", "pyproject.toml", "constraints.txt"}
    assert copied >= {PROJECT["readme"], *PROJECT["license-files"]}
    assert [name for name in copied if not (ROOT / name).exists()] == []
    (extras,) = [words.removeprefix("EXTRAS=").split(",") for name, words in found if words.startswith("EXTRAS=")]
    assert (
        set(extras) <= set(PROJECT["optional-dependencies"]) and dockerfile.stem.split(".")[0][:5] in extras[0] + "er"
    )
    assert any(name == "RUN" and '-c constraints.txt ".[${EXTRAS}]"' in words for name, words in found)


def test_the_image_of_a_worker_is_that_of_the_pinned_beam_and_keeps_its_entry_point():
    found = instructions(ROOT / "docker/pipeline.Dockerfile")
    assert [words for name, words in found if name == "FROM"] == [f"apache/beam_python${{PYTHON}}_sdk:{BEAM}"]
    assert {name for name, _ in found} == {"ARG", "FROM", "WORKDIR", "COPY", "RUN"}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_hadolint_finds_no_fault_in_an_image(dockerfile):
    done = subprocess.run([BIN / "hadolint", dockerfile], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


# ---- scripts


def test_shellcheck_finds_no_fault_in_a_script():
    done = subprocess.run([BIN / "shellcheck", *SCRIPTS], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_each_script_is_tried_here():
    assert {path.name for path in SCRIPTS} == set(SETTINGS)
    assert all(os.access(path, os.X_OK) for path in SCRIPTS)


@pytest.mark.parametrize("script", ["spark.sh", "dask-slurm.sh", "dataflow.sh"])
def test_a_script_for_an_engine_gives_flags_that_bertloom_and_beam_know(script, tmp_path):
    words = commands_of(script, tmp_path, "--dupe-factor", "3")["bertloom preprocess"]
    config, options = check_preprocess(words)
    assert (config.input, config.vocab, config.out) == (("texts/*.jsonl",), "my vocab.txt", "books")
    assert config.examples.dupe_factor == 3
    expected = {
        "spark.sh": {
            "runner": "SparkRunner",
            "spark_master_url": "spark://host:7077",
            "spark_job_server_jar": "job server.jar",
            "environment_type": "EXTERNAL",
            "environment_config": "localhost:50000",
        },
        "dask-slurm.sh": {"runner": "DaskRunner", "scheduler_file": str(tmp_path / "dask-7.json")},
        "dataflow.sh": {
            "runner": "DataflowRunner",
            "project": "p",
            "region": "europe-west1",
            "temp_location": "gs://b/staging",
            "sdk_container_image": "registry/image:1",
            "sdk_location": "container",
            "machine_type": "n2-standard-4",
            "max_num_workers": 20,
        },
    }[script]
    assert {name: options[name] for name in expected} == expected


@pytest.mark.parametrize("script", ["spark.sh", "dask-slurm.sh", "dataflow.sh", "torchrun-slurm.sh"])
def test_a_script_names_a_setting_that_is_missing(script, tmp_path):
    needed = SETTINGS[script] | (TRAINING if script == "torchrun-slurm.sh" else TEXTS)
    for number, name in enumerate(name for name in needed if not name.startswith("SLURM")):
        folder = tmp_path / str(number)
        done = run_script(ROOT / "deploy" / script, folder, **{key: needed[key] for key in needed if key != name})
        assert done.returncode != 0 and f"{name}: set {name} to " in done.stderr
        assert not (folder / "record").exists()


def test_the_workers_of_dask_find_its_scheduler_by_a_file_and_the_job_names_the_same(tmp_path):
    commands = commands_of("dask-slurm.sh", tmp_path)
    file = str(tmp_path / "dask-7.json")
    assert commands["dask scheduler"] == ["--port", "0", "--scheduler-file", file]
    assert commands["dask worker"] == ["--scheduler-file", file, "--nworkers", "4", "--nthreads", "1"]
    dask_worker.main.make_context("worker", commands["dask worker"])
    dask_scheduler.main.make_context("scheduler", commands["dask scheduler"])
    assert not Path(file).exists()


def test_a_scheduler_of_dask_that_ends_is_reported(tmp_path):
    done = run_script(ROOT / "deploy/dask-slurm.sh", tmp_path, **TEXTS, **SETTINGS["dask-slurm.sh"], DASK_FAILS="1")
    assert done.returncode == 1 and "the scheduler of Dask has ended: see above" in done.stderr
    assert "bertloom" not in (tmp_path / "record").read_text("utf-8")


def test_a_worker_pool_has_a_flag_for_each_word(tmp_path):
    words = commands_of("worker-pool.sh", tmp_path)["bertloom worker-pool"]
    assert parse(WorkerPoolConfig, words, prog="bertloom worker-pool").port == 50000


def test_a_worker_pool_without_its_virtual_environment_says_so(tmp_path):
    done = run_script(ROOT / "deploy/worker-pool.sh", tmp_path, VENV=str(tmp_path / "none"))
    assert done.returncode == 2
    assert (
        done.stderr == f"{tmp_path}/none/bin/python does not exist: set VENV to the virtual environment of bertloom\n"
    )


def test_the_script_of_a_training_gives_flags_that_torchrun_and_bertloom_know(tmp_path):
    from torch.distributed.run import get_args_parser

    (words,) = commands_of("torchrun-slurm.sh", tmp_path, "tiny", "--num-steps", "5").values()
    options = get_args_parser().parse_args(["--no-python", *words])
    assert (options.nnodes, options.nproc_per_node, options.rdzv_id) == ("2", "8", "7")
    assert (options.rdzv_backend, options.rdzv_endpoint, options.max_restarts) == ("c10d", "node1:29500", 3)
    assert [options.training_script, *options.training_script_args][:2] == ["bertloom", "pretrain"]
    config = parse(PretrainConfig, options.training_script_args[1:], prog="bertloom pretrain")
    assert (config.data, str(config.out), config.num_steps) == ("s3://bucket/books", "my run", 5)


def test_two_ranks_train_with_the_flags_of_the_script(tmp_path):
    """torchrun, gloo and two processes on this machine, with the words that the script gives to torchrun."""
    words = commands_of("torchrun-slurm.sh", tmp_path, "tiny", "--num-steps", "1", "--device", "cpu")
    (words,) = words.values()
    places = {"--nnodes=2": "--nnodes=1", "--nproc-per-node=8": "--nproc-per-node=2", "my run": str(tmp_path / "run")}
    places |= {"--rdzv-endpoint=node1:29500": "--rdzv-endpoint=localhost:0", "/tmp/bertloom": str(tmp_path / "cache")}
    places |= {"s3://bucket/books": str(ROOT / "tests/golden/dataset")}
    (tmp_path / "bertloom").write_text(f'#!/bin/sh\nexec {sys.executable} -m jobs.cli "$@"\n')
    (tmp_path / "bertloom").chmod(0o755)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--no-python",
        *(places.get(word, word) for word in words),
    ]
    path = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=os.environ | path | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])["step"] == 1


# ---- Kubernetes


def objects(manifest: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(manifest.read_text("utf-8")))


ALL = [found for manifest in MANIFESTS for found in objects(manifest)]
CONTAINERS = [
    container
    for found in ALL
    if "template" in found["spec"]
    for container in found["spec"]["template"]["spec"]["containers"]
]


@pytest.mark.parametrize("version", ["1.30", "1.35"])
def test_each_object_follows_the_schema_of_kubernetes(version):
    for found in ALL:
        kubernetes_validate.validate(found, version, strict=True)


def test_services_and_deployments_select_pods_that_exist():
    pods = [found["spec"]["template"]["metadata"]["labels"] for found in ALL if found["kind"] == "Deployment"]
    for found in ALL:
        if found["kind"] in ("Service", "Deployment"):
            selector = found["spec"]["selector"]
            selector = selector.get("matchLabels", selector)
            assert sum(selector.items() <= labels.items() for labels in pods) == 1, found["metadata"]["name"]


def test_the_images_have_the_pinned_beam_and_the_version_of_bertloom():
    images = {container["image"] for container in CONTAINERS}
    assert f"REGISTRY/bertloom-pipeline:{PROJECT['version']}" in images
    assert {image.rpartition(":")[2] for image in images if image.startswith("apache/beam")} == {BEAM}
    flink = {re.search(r"flink:?(\d+\.\d+)", image)[1] for image in images if "flink" in image}
    assert len(flink) == 1  # the job server is made for one version of Flink


def test_flink_tries_again_what_a_lost_worker_did():
    (manager,) = [container for container in CONTAINERS if container["name"] == "jobmanager"]
    properties = yaml.safe_load(manager["env"][0]["value"])
    assert properties["restart-strategy.type"] == "fixed-delay"
    assert properties["restart-strategy.fixed-delay.attempts"] > 1


def test_the_job_reaches_the_pool_beside_each_task_manager_and_uses_every_slot():
    by_name = {container["name"]: container for container in CONTAINERS}
    (job,) = [found for found in ALL if found["kind"] == "Job"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["bertloom", "preprocess"]
    _, options = check_preprocess(container["args"])
    pool = by_name["worker-pool"]
    port = pool["ports"][0]["containerPort"]
    assert pool["command"][:2] == ["bertloom", "worker-pool"]
    assert parse(WorkerPoolConfig, pool["command"][2:], prog="bertloom worker-pool").port == port
    assert f"('localhost', {port})" in pool["readinessProbe"]["exec"]["command"][-1]
    assert options["environment_type"] == "EXTERNAL" and options["environment_config"] == f"localhost:{port}"
    (managers,) = [found for found in ALL if found["metadata"]["name"] == "flink-taskmanager"]
    (slots,) = re.findall(r"numberOfTaskSlots: (\d+)", by_name["taskmanager"]["env"][0]["value"])
    assert pool["resources"]["requests"]["cpu"] == slots
    assert int(options["parallelism"]) == int(slots) * managers["spec"]["replicas"]
    services = {found["metadata"]["name"]: found for found in ALL if found["kind"] == "Service"}
    for name in ("job_endpoint", "artifact_endpoint"):
        host, _, port = options[name].partition(":")
        assert int(port) in [entry["port"] for entry in services[host]["spec"]["ports"]]
