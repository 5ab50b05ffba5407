#!/usr/bin/env bash
# Start a pool of Beam workers on this machine, for Flink or Spark. Run it on each machine of the cluster:
#
#     VENV=/opt/bertloom/.venv deploy/worker-pool.sh
#
# The pool listens on port 50000 and starts a process for each task that Flink or Spark runs here. The processes are those
# of the first `python` on PATH, which needs the bertloom, the Beam and the Python version of the process that starts the
# job. Credentials of object stores, such as AWS_ACCESS_KEY_ID, come from this environment.
#
# Checked by tests: shellcheck, and the command's flag. Tried by hand with a job on Prism. Not checked: this script with Flink
# and Spark, which were tried with the same command.
set -euo pipefail

VENV=${VENV:-$PWD/.venv}
PORT=${PORT:-50000}

[ -x "$VENV/bin/python" ] || { echo "$VENV/bin/python does not exist: set VENV to the virtual environment of bertloom" >&2; exit 2; }
export PATH="$VENV/bin:$PATH"
exec python -m apache_beam.runners.worker.worker_pool_main --service_port="$PORT"
