#!/usr/bin/env bash
# Preprocess on a standalone Spark 3 cluster. First start deploy/worker-pool.sh on each machine of the cluster. Then, on a
# machine with Java that the executors can reach:
#
#     export SPARK_MASTER=spark://HOST:7077 SPARK_JOB_SERVER_JAR=beam-runners-spark-3-job-server-2.77.0.jar
#     INPUT='s3://bucket/text/*.jsonl' VOCAB=s3://bucket/vocab.txt OUT=s3://bucket/books deploy/spark.sh --dupe-factor 10
#
# Words after the script are flags of `bertloom preprocess`. The jar is org.apache.beam:beam-runners-spark-3-job-server on
# Maven Central. INPUT, VOCAB and OUT must be readable from every machine: an object store or a shared folder. After a
# failure, the same command does the rest.
#
# Checked by tests: shellcheck, and the command's flags against the parsers of bertloom and Beam. Not checked: the script on
# a Spark cluster.
set -euo pipefail

: "${INPUT:?set INPUT to the texts, such as 's3://bucket/text/*.jsonl'}"
: "${VOCAB:?set VOCAB to the vocabulary file}"
: "${OUT:?set OUT to the folder of the data set}"
: "${SPARK_MASTER:?set SPARK_MASTER to the master, such as spark://HOST:7077}"
: "${SPARK_JOB_SERVER_JAR:?set SPARK_JOB_SERVER_JAR to the jar of Beam\'s job server for Spark 3}"

exec bertloom preprocess --input "$INPUT" --vocab "$VOCAB" --out "$OUT" "$@" \
    -- --runner=SparkRunner \
    --spark_master_url="$SPARK_MASTER" \
    --spark_job_server_jar="$SPARK_JOB_SERVER_JAR" \
    --environment_type=EXTERNAL \
    --environment_config="localhost:${PORT:-50000}"
