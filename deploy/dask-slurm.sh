#!/usr/bin/env bash
#SBATCH --job-name=bertloom-preprocess
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=12:00:00
#
# Preprocess with Dask on nodes of Slurm. From a folder that all nodes see:
#
#     export VENV=$HOME/bertloom/.venv INPUT='/shared/text/*.jsonl' VOCAB=/shared/vocab.txt OUT=/shared/books
#     sbatch --nodes=8 deploy/dask-slurm.sh --dupe-factor 10
#
# Words after the script are flags of `bertloom preprocess`. The virtual environment needs the extras `pipeline` and
# `dask`. Each node runs a worker process for each of its CPUs, and the first node also Dask's scheduler and the job.
# INPUT, VOCAB and OUT are folders that all nodes see, or URLs of an object store. If the time runs out, submit the script
# again: it does the rest.
#
# Checked by tests: shellcheck, and the flags against the parsers of bertloom, Beam and Dask. Tried by hand with two workers
# and a stand-in for srun. Not checked: the script on Slurm.
set -euo pipefail

: "${INPUT:?set INPUT to the texts, such as '/shared/text/*.jsonl'}"
: "${VOCAB:?set VOCAB to the vocabulary file}"
: "${OUT:?set OUT to the folder of the data set}"
export PATH="${VENV:-$PWD/.venv}/bin:$PATH"
export OMP_NUM_THREADS=1 # each process has one CPU

address=$PWD/dask-$SLURM_JOB_ID.json # the scheduler writes this file when it is ready
dask scheduler --port 0 --scheduler-file "$address" &
scheduler=$!
srun dask worker --scheduler-file "$address" --nworkers "$SLURM_CPUS_PER_TASK" --nthreads 1 &
workers=$!

end() { # the workers first: without a scheduler each would print a traceback
    kill "$workers" && wait "$workers" || true
    kill "$scheduler" && wait "$scheduler" || true
    rm -f "$address"
}
trap end EXIT

until [ -s "$address" ]; do
    kill -0 "$scheduler" || { echo "the scheduler of Dask has ended: see above" >&2; exit 1; }
    sleep 1
done
bertloom preprocess --input "$INPUT" --vocab "$VOCAB" --out "$OUT" "$@" \
    -- --runner=DaskRunner --dask_scheduler_file="$address"
