"""Make corpora of awkward shapes out of a corpus in .jsonl.gz files, for benchmarks/check_plan.py.

    python benchmarks/plan_corpora.py corpus_en OUT

skewed: novels, paragraphs and documents in three formats. files: thousands of small files in which each paragraph is a
document, and most occur twice. archives: the same in a .zip and a .tar.gz. sorted: all documents from short to long.
"""

import csv
import gzip
import json
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

LONG = 100_000  # characters of a text that counts as a novel
MOST = 20_000  # characters of a small file


def main() -> None:
    corpus, out = map(Path, sys.argv[1:])
    texts = list(read_texts(corpus))
    novels, documents = ([text for text in texts if (len(text) > LONG) == is_long] for is_long in (True, False))
    for name in ("skewed", "files", "archives", "sorted"):
        (out / name).mkdir(parents=True)
    write_rows(out / "skewed/novels.jsonl", novels)
    paragraphs = [part for text in documents for part in text.split("\n\n") if len(part) > 80]
    with (out / "skewed/paragraphs.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text"], *([part] for part in paragraphs)])
    pq.write_table(pa.table({"text": documents}), out / "skewed/documents.parquet", row_group_size=400)
    write_rows(out / "sorted/all.jsonl.gz", sorted(documents, key=len))
    files = []
    for number, text in enumerate(documents * 2):
        files.append(out / f"files/{number:05d}.txt")
        files[-1].write_text(f"{text[:MOST]}\n{number}", encoding="utf-8")
    half = len(files) // 2
    with zipfile.ZipFile(out / "archives/first.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files[:half]:
            archive.write(path, path.name)
    with tarfile.open(out / "archives/second.tar.gz", "w:gz") as tape:
        for path in files[half:]:
            tape.add(path, path.name)


def read_texts(corpus: Path) -> Iterator[str]:
    for path in sorted(corpus.glob("*.jsonl.gz")):
        with gzip.open(path, "rt", -1, "utf-8") as file:
            yield from (json.loads(line)["text"] for line in file)


def write_rows(path: Path, texts: Iterable[str]) -> None:
    with gzip.open(path, "wt", 6, "utf-8") if path.suffix == ".gz" else path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)


if __name__ == "__main__":
    main()
