#!/usr/bin/env bash
# Preprocess on Google Cloud Dataflow, with workers of docker/pipeline.Dockerfile (build it with the extras `pipeline,gcs`):
#
#     export PROJECT=my-project REGION=europe-west1 BUCKET=gs://my-bucket
#     export IMAGE=europe-west1-docker.pkg.dev/my-project/images/bertloom-pipeline:0.1.0
#     INPUT="$BUCKET/text/*.jsonl" VOCAB=$BUCKET/vocab.txt OUT=$BUCKET/books deploy/dataflow.sh --dupe-factor 10
#
# Words after the script are flags of `bertloom preprocess`. The machine that starts the job needs the extra `gcp`, the
# Python of the image, and credentials (`gcloud auth application-default login`). After a failure, the
# same command does the rest.
#
# Checked by tests: shellcheck, and the command's flags against the parsers of bertloom and Beam. Not checked: a job on
# Dataflow.
set -euo pipefail

: "${INPUT:?set INPUT to the texts, such as 'gs://bucket/text/*.jsonl'}"
: "${VOCAB:?set VOCAB to the vocabulary file}"
: "${OUT:?set OUT to the folder of the data set}"
: "${PROJECT:?set PROJECT to the project that pays}"
: "${REGION:?set REGION to the region of the bucket, such as europe-west1}"
: "${BUCKET:?set BUCKET to a bucket for temporary files, such as gs://my-bucket}"
: "${IMAGE:?set IMAGE to the image of docker/pipeline.Dockerfile in a registry that the project can read}"

exec bertloom preprocess --input "$INPUT" --vocab "$VOCAB" --out "$OUT" "$@" \
    -- --runner=DataflowRunner \
    --project="$PROJECT" \
    --region="$REGION" \
    --temp_location="$BUCKET/staging" \
    --sdk_container_image="$IMAGE" \
    --sdk_location=container \
    --machine_type="${MACHINE:-n2-standard-4}" \
    --disk_size_gb=50 \
    --max_num_workers="${MAX_WORKERS:-20}"
