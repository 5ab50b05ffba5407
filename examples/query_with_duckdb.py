"""A data set in DuckDB: sizes, labels, and the words that are masked most often.

    bertloom export-data DATASET --out examples.parquet
    python examples/query_with_duckdb.py DATASET examples.parquet

`shards.parquet` and `documents/` of a data set are Parquet and need no export. DuckDB reads as much as a query needs, so the
tables may be larger than memory.
"""

import sys

import duckdb
import pyarrow as pa
from tokenizers import Tokenizer


def shards(dataset: str) -> duckdb.DuckDBPyRelation:
    """Examples, tokens and megabytes by split, length and copy."""
    return duckdb.sql(f"""
        SELECT split, max_seq_length, copy, count(*) AS shards, sum(examples)::BIGINT AS examples,
               sum(tokens)::BIGINT AS tokens, round(sum(bytes) / 1e6, 2) AS megabytes
        FROM '{dataset}/shards.parquet'
        GROUP BY ALL ORDER BY ALL
    """)


def labels(examples: str) -> duckdb.DuckDBPyRelation:
    """Next-sentence labels: how many, and the mean length of their examples. -1 means that an example is one segment."""
    return duckdb.sql(f"""
        SELECT split, next_sentence_label AS label, count(*) AS examples, round(avg(len(input_ids)), 1) AS tokens
        FROM '{examples}'
        GROUP BY ALL ORDER BY ALL
    """)


def masked_words(dataset: str, examples: str, number: int = 10) -> duckdb.DuckDBPyRelation:
    """The tokens that the model has to predict most often, and the share of all masks that each of them has."""
    tokenizer = Tokenizer.from_file(f"{dataset}/tokenizer.json")
    ids = range(tokenizer.get_vocab_size())
    words = pa.table({"id": ids, "word": [tokenizer.id_to_token(i) for i in ids]})  # noqa: F841 (DuckDB finds it by name)
    return duckdb.sql(f"""
        WITH masks AS (SELECT unnest(masked_lm_ids) AS id FROM '{examples}' WHERE split = 'train')
        SELECT word, count(*) AS masks, round(count(*) / (SELECT count(*) FROM masks), 4) AS share
        FROM masks JOIN words USING (id)
        GROUP BY word ORDER BY masks DESC, word LIMIT {number}
    """)


def frequent_sources(dataset: str, number: int = 10) -> duckdb.DuckDBPyRelation:
    """The input files with the most tokens."""
    return duckdb.sql(f"""
        SELECT source, count(*) AS documents, sum(num_tokens)::BIGINT AS tokens
        FROM '{dataset}/documents/**/*.parquet'
        GROUP BY source ORDER BY tokens DESC, source LIMIT {number}
    """)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    dataset, examples = sys.argv[1:]
    for relation in (shards(dataset), labels(examples), masked_words(dataset, examples), frequent_sources(dataset)):
        print(relation)


if __name__ == "__main__":
    main()
