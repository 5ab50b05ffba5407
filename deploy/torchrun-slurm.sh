#!/usr/bin/env bash
#SBATCH --job-name=bertloom-pretrain
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#
# Pretrain on several nodes of Slurm, with the data set on an object store:
#
#     export VENV=$HOME/bertloom/.venv DATA=s3://bucket/books RUN=/shared/runs/base CACHE=/local/bertloom
#     sbatch --nodes=8 deploy/torchrun-slurm.sh base --num-steps 100000
#
# Words after the script are presets and flags of `bertloom pretrain`. The virtual environment needs the extras `train` and
# `s3`. RUN is a folder that all nodes see; CACHE is a folder on each node's own disk, into which the node downloads shards.
# Five minutes before the time runs out, Slurm sends SIGTERM: the run saves a checkpoint and ends. Submit the script again
# with the same words: it resumes, also with another number of nodes.
#
# Checked by tests: shellcheck, the flags against the parsers of bertloom and torchrun, and that torchrun starts two ranks
# on a CPU with these flags. Not checked: the script on Slurm and on GPUs.
set -euo pipefail

: "${DATA:?set DATA to the data set, such as s3://bucket/books}"
: "${RUN:?set RUN to the folder of the run, which all nodes see}"
export PATH="${VENV:-$PWD/.venv}/bin:$PATH"

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
exec srun torchrun --no-python \
    --nnodes="$SLURM_NNODES" \
    --nproc-per-node="${SLURM_GPUS_ON_NODE:-8}" \
    --rdzv-id="$SLURM_JOB_ID" \
    --rdzv-backend=c10d \
    --rdzv-endpoint="$first:${PORT:-29500}" \
    --max-restarts=3 \
    bertloom pretrain "$@" --data "$DATA" --out "$RUN" --cache-dir "${CACHE:-/tmp/bertloom}" --cache-gb "${CACHE_GB:-200}"
