#!/bin/sh
# Measure and check training on one GPU in at most 8 minutes, from a bare checkout; docs/training.md, "On a new GPU".
#
#     benchmarks/on_gpu.sh [--minutes 8] [--only TEXT ...] [--rehearse]
#
# PYTHON chooses the Python: one with torch, transformers, tokenizers, safetensors, pyarrow, numpy, fsspec and psutil.
set -eu
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" benchmarks/bench_gpu.py "$@"
