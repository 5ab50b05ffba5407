#!/usr/bin/env bash
# Start a pool of Beam workers on this machine, for Flink or Spark. Run it on each machine of the cluster:
#
#     VENV=/opt/bertloom/.venv deploy/worker-pool.sh
#
# The pool listens on port 50000 and starts a process when Flink or Spark asks for a worker here. The environment needs the
# bertloom, the Beam and the Python version of the process that starts the job. Credentials of object stores, such as
# AWS_ACCESS_KEY_ID, come from this environment. Only programs on this machine reach the pool.
#
# Checked by tests: shellcheck, and the command's flags against its parser. The command was tried with jobs on Prism. Not
# checked: the command with Flink and Spark, which were tried with Beam's own pool.
set -euo pipefail

VENV=${VENV:-$PWD/.venv}
PORT=${PORT:-50000}

[ -x "$VENV/bin/python" ] || { echo "$VENV/bin/python does not exist: set VENV to the virtual environment of bertloom" >&2; exit 2; }
export PATH="$VENV/bin:$PATH"
exec bertloom worker-pool --port "$PORT"
