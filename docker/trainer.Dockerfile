# A machine with GPUs: bertloom with torch, without Beam.
#
#     docker build -f docker/trainer.Dockerfile -t REGISTRY/bertloom-trainer:0.1.0 .
#     docker run --gpus all --shm-size 8g -v /data:/data REGISTRY/bertloom-trainer:0.1.0 \
#         torchrun --no-python --nproc-per-node 8 bertloom pretrain base --data s3://bucket/books --out /data/run
#
# torch comes from PyPI with CUDA's libraries, in the versions of constraints.txt; the machine needs only NVIDIA's driver.
# torch.compile needs a C compiler when training starts.
#
# Checked by tests: hadolint, the copied paths, the extras. Checked by hand: the line with pip, in a new virtual
# environment, and a short training there on a CPU. Not checked: the build itself, and a run of the image.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*

ARG EXTRAS=train,s3
WORKDIR /opt/bertloom
COPY pyproject.toml constraints.txt README.md LICENSE bertloom_entry.py ./
COPY bertloom bertloom/
COPY pipeline pipeline/
COPY model model/
COPY jobs jobs/
RUN pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]" && bertloom pretrain --help > /dev/null

CMD ["bertloom", "--help"]
