"""A data set in Polars: sizes, the lengths of examples, and the longest documents.

    bertloom export-data DATASET --out examples.parquet
    python examples/query_with_polars.py DATASET examples.parquet

Polars reads the files lazily and as a stream, so the tables may be larger than memory.
"""

import sys

import polars as pl


def shards(dataset: str) -> pl.DataFrame:
    """Examples, tokens and megabytes by split, length and copy."""
    groups = ["split", "max_seq_length", "copy"]
    sums = (
        pl.len().alias("shards"),
        pl.sum("examples"),
        pl.sum("tokens"),
        (pl.sum("bytes") / 1e6).round(2).alias("megabytes"),
    )
    return pl.scan_parquet(f"{dataset}/shards.parquet").group_by(groups).agg(*sums).sort(groups).collect()


def lengths(examples: str, step: int = 32) -> pl.DataFrame:
    """Number of examples by length in tokens, in steps: 0 to 31, 32 to 63, …, and the share of their tokens to predict."""
    row = pl.scan_parquet(examples).select(
        (pl.col("input_ids").list.len() // step * step).alias("from_tokens"),
        pl.col("input_ids").list.len().alias("tokens"),
        pl.col("masked_lm_ids").list.len().alias("masks"),
    )
    masked = (pl.sum("masks") / pl.sum("tokens")).round(4).alias("masked")
    return (
        row.group_by("from_tokens")
        .agg(pl.len().alias("examples"), masked)
        .sort("from_tokens")
        .collect(engine="streaming")
    )


def longest_documents(dataset: str, number: int = 10) -> pl.DataFrame:
    """The documents with the most tokens, and where they begin in their files."""
    documents = pl.scan_parquet(f"{dataset}/documents/**/*.parquet")
    columns = ["source", "position", "num_sentences", "num_tokens"]
    return documents.select(columns).sort(["num_tokens", "source", "position"], descending=True).head(number).collect()


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    dataset, examples = sys.argv[1:]
    for table in (shards(dataset), lengths(examples), longest_documents(dataset)):
        print(table)


if __name__ == "__main__":
    main()
