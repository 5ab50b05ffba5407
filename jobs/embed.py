"""Compute a vector for each text with a pretrained or fine-tuned model, and write a Parquet file.

    bertloom embed --model RUN --input texts.txt --out vectors.parquet

The columns are

    row      int64; the index of the row in the input, from 0; indices of skipped rows are missing
    id       string; the row's id, null if it has none
    text     string; the text, with --keep-text
    vector   list of hidden_size float32; the vector

Texts are read as a stream, so the input may be larger than memory. Vectors of a BERT that was not trained for similarity are
good features for a classifier, but their cosine is a poor measure of similarity: `bertloom finetune --task embed` trains it.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from bertloom.counts import counted
from bertloom.whole_files import output_file
from jobs.support.config import parse
from jobs.support.finetune_config import pairs
from jobs.support.outputs import STANDARD, check_output
from model.pooling import Pooling


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Compute a vector for each text, and write a Parquet file."""

    model: Path
    """Run folder, or a directory in transformers' form."""
    input: Path
    """Texts: .txt (a text in each line), .jsonl, .csv, .tsv, .parquet, .arrow, or - for JSONL on standard input."""
    out: Path
    """Parquet file to write."""
    overwrite: bool = False
    """Replace the file of --out if it exists."""
    pooling: Pooling | None = None
    """Vector of a text: mean is the mean over all tokens, including [CLS] and [SEP]; cls is the vector of [CLS]. The default
    is the pooling that the model was trained with, or else mean."""
    normalize: bool | None = None
    """Divide each vector by its length, so that the scalar product of two is their cosine. The default is yes if the model
    was trained so, and otherwise no."""
    max_seq_length: int | None = None
    """Number of tokens to read of each text. The default is the length that the model was trained on. Truncated texts are
    counted."""
    keep_text: bool = False
    """Write the texts, too, as the column `text`."""
    columns: tuple[str, ...] = ()
    """Name of the column of texts, if it is not found automatically: text=sentence."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """What to do about an unusable row: stop and report it, or skip it."""
    device: str = "auto"
    """Device: cpu, cuda, cuda:1, … auto is cuda if available, otherwise cpu."""

    def __post_init__(self) -> None:
        pairs("columns", self.columns)
        if str(self.out) == STANDARD:
            raise ValueError("out=-: a Parquet file cannot be written to standard output: give the name of a file")
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
    skipped, cut = counted(done.num_bad, "row"), counted(done.num_cut, "text")
    print(f"{config.out}: {counted(done.num_rows, 'vector')}; {skipped} skipped, {cut} truncated")


def embed(config: EmbedConfig) -> Embedded:
    """Write the file, which appears under its name only when it is complete."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from jobs.support.texts import TEXT_FORMS, parse_text, read_input
    from model.hub.pretrained import open_pretrained
    from model.inference.embed import Embedder
    from model.tasks.values import BadRow

    check_output(config.out, [config.input], config.model, overwrite=config.overwrite)
    texts = read_input(config.input, TEXT_FORMS, parse_text, pairs("columns", config.columns), config.on_bad_row)
    pretrained = open_pretrained(config.model)
    size = pretrained.config.shape.hidden_size
    model = Embedder(pretrained, config.pooling, config.max_seq_length, config.device, config.normalize)
    types = {"row": pa.int64(), "id": pa.string()} | ({"text": pa.string()} if config.keep_text else {})
    schema = pa.schema(types | {"vector": pa.list_(pa.float32(), size)})
    num_rows = num_read = num_cut = 0
    with (
        output_file(config.out) as file,
        pq.ParquetWriter(file, schema) as writer,
        tqdm(desc="embed", unit=" rows", file=sys.stderr, disable=None) as bar,
    ):
        for chunk in texts:
            good = [(number, row) for number, (_, row) in enumerate(chunk, num_read) if not isinstance(row, BadRow)]
            if good:
                vectors, cut = model.embed([row.text for _, row in good])
                columns = [
                    pa.array([number for number, _ in good], pa.int64()),
                    pa.array([None if row.id is None else str(row.id) for _, row in good], pa.string()),
                    *([pa.array([row.text for _, row in good], pa.string())] if config.keep_text else []),
                    pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors).reshape(-1)), size),
                ]
                writer.write_batch(pa.record_batch(columns, schema=schema))
                num_cut += cut
            num_rows, num_read = num_rows + len(good), num_read + len(chunk)
            bar.update(len(chunk))
    return Embedded(num_rows=num_rows, num_bad=num_read - num_rows, num_cut=num_cut)
