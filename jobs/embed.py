"""Compute a vector for each text with a pretrained or fine-tuned model, and write a Parquet file.

    bertloom embed --model RUN --input texts.jsonl --out vectors.parquet

The columns are `row`, the index of the row from 0; `id`, if rows have one; and `vector`, in 32-bit floats. Texts are read as
a stream, so the input may be larger than memory. Vectors of a BERT that was not trained for similarity are good features for
a classifier, but their cosine is a poor measure of similarity.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from bertloom.whole_files import whole_file
from jobs.support.config import parse
from jobs.support.finetune_config import pairs


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Compute a vector for each text, and write a Parquet file."""

    model: Path
    """Run folder, or a directory in transformers' form."""
    input: Path
    """Texts: .jsonl, .csv, .tsv, .parquet, or - for JSONL on standard input."""
    out: Path
    """Parquet file to write."""
    pooling: Literal["mean", "cls"] = "mean"
    """Vector of a text: mean is the mean over all tokens, including [CLS] and [SEP]; cls is the vector of [CLS]."""
    max_seq_length: int | None = None
    """Number of tokens to read of each text. The default is the length that the model was trained on. Truncated texts are
    counted."""
    columns: tuple[str, ...] = ()
    """Name of the column of texts, if it is not found automatically: text=sentence."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """What to do about an unusable row: stop and report it, or skip it."""
    device: str = "auto"
    """Device: cpu, cuda, cuda:1, … auto is cuda if available, otherwise cpu."""

    def __post_init__(self) -> None:
        pairs("columns", self.columns)
        if self.max_seq_length is not None and self.max_seq_length < 3:
            raise ValueError(f"max_seq_length={self.max_seq_length} must be at least 3: [CLS], a token and [SEP]")


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """The result of a command."""

    num_rows: int
    """Number of vectors."""
    num_bad: int
    """Number of skipped rows."""
    num_cut: int
    """Number of truncated texts."""


def main(argv: Sequence[str]) -> None:
    config = parse(EmbedConfig, argv, prog="bertloom embed")
    done = embed(config)
    print(f"{config.out}: {done.num_rows:,} vectors; {done.num_bad:,} rows skipped, {done.num_cut:,} texts truncated")


def embed(config: EmbedConfig) -> Embedded:
    """Write the file, which appears under its name only when it is complete."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from jobs.support.texts import Text, read_texts
    from model.hub.pretrained import open_pretrained
    from model.inference.embed import Embedder

    pretrained = open_pretrained(config.model)
    size = pretrained.config.shape.hidden_size
    model = Embedder(pretrained, config.pooling, config.max_seq_length, config.device)
    schema = pa.schema([("row", pa.int64()), ("id", pa.string()), ("vector", pa.list_(pa.float32(), size))])
    num_rows = num_read = num_cut = 0
    with (
        whole_file(config.out) as file,
        pq.ParquetWriter(file, schema) as writer,
        tqdm(desc="embed", unit=" rows", file=sys.stderr, disable=None) as bar,
    ):
        for rows in read_texts(config.input, pairs("columns", config.columns), config.on_bad_row):
            good = [(number, row) for number, row in enumerate(rows, num_read) if isinstance(row, Text)]
            if good:
                vectors, cut = model.embed([row.text for _, row in good])
                flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
                columns = [
                    pa.array([number for number, _ in good], pa.int64()),
                    pa.array([None if row.id is None else str(row.id) for _, row in good], pa.string()),
                    pa.FixedSizeListArray.from_arrays(flat, size),
                ]
                writer.write_batch(pa.record_batch(columns, schema=schema))
                num_cut += cut
            num_rows, num_read = num_rows + len(good), num_read + len(rows)
            bar.update(len(rows))
    return Embedded(num_rows=num_rows, num_bad=num_read - num_rows, num_cut=num_cut)
