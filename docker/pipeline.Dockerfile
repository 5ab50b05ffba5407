# A worker of the pipeline: Beam's image of the Python SDK with bertloom, without torch. Also starts jobs.
#
#     docker build -f docker/pipeline.Dockerfile -t REGISTRY/bertloom-pipeline:0.1.0 .
#     docker build -f docker/pipeline.Dockerfile --build-arg PYTHON=3.12 --build-arg EXTRAS=pipeline,gcs,chinese -t … .
#
# PYTHON must be the Python of the process that starts the job, and the image's tag the version of Beam in
# constraints.txt. The entry point is that of Beam's image, so the image serves Dataflow (--sdk_container_image), Docker
# (--environment_type=DOCKER) and worker pools (`docker run -p 50000:50000 IMAGE --worker_pool`).
#
# Checked by tests: hadolint, the tag, the copied paths, the extras. Checked by hand: the line with pip, in a new virtual
# environment. Not checked: the build itself, and a run of the image.
ARG PYTHON=3.11
FROM apache/beam_python${PYTHON}_sdk:2.77.0

ARG EXTRAS=pipeline,s3
WORKDIR /opt/bertloom
COPY pyproject.toml constraints.txt README.md LICENSE bertloom_entry.py ./
COPY bertloom bertloom/
COPY pipeline pipeline/
COPY model model/
COPY jobs jobs/
RUN pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]" && bertloom preprocess --help > /dev/null
