"""Limits of the shard format that flags are compared with before pyarrow is loaded."""

MIN_SEQ_LENGTH, MAX_SEQ_LENGTH = 8, 65_535
MAX_SHARDS = 4096
"""Most shards of a split, length and copy that preprocessing makes."""
