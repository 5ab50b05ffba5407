"""Beam's flags for stores as options of `bertloom.storage`: `-- --s3_endpoint_url=…`, `-- --hdfs_host=…`."""

from typing import Any

from apache_beam.options.pipeline_options import HadoopFileSystemOptions, PipelineOptions, S3Options

from bertloom import storage


def storage_options(options: PipelineOptions) -> storage.Options:
    """Return the options of the stores that a job's flags name."""
    s3, hdfs = options.view_as(S3Options), options.view_as(HadoopFileSystemOptions)
    client = {"region_name": s3.s3_region_name, "api_version": s3.s3_api_version, "verify": s3.s3_verify}
    of_s3: dict[str, Any] = {
        "key": s3.s3_access_key_id,
        "secret": s3.s3_secret_access_key,
        "token": s3.s3_session_token,
        "endpoint_url": s3.s3_endpoint_url,
        "use_ssl": False if s3.s3_disable_ssl else None,
        "client_kwargs": _given(client) or None,
    }
    of_hdfs: dict[str, Any] = {}
    if hdfs.hdfs_host:  # Beam's port is that of HDFS's web interface, which is another file system of fsspec
        of_hdfs = {"protocol": "webhdfs", "host": hdfs.hdfs_host, "has_host": hdfs.hdfs_full_urls}
        of_hdfs |= _given({"port": hdfs.hdfs_port, "user": hdfs.hdfs_user})
    named = {"s3": _given(of_s3), "hdfs": of_hdfs}
    return _given(named)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, {})}
