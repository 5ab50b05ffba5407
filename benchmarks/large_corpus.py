"""Make a corpus of any size from real text: paragraphs of its documents, drawn at random and joined to new documents.

    python benchmarks/large_corpus.py --input 'corpus_en/*.jsonl.gz' --megabytes 2000 --out large.jsonl

Word frequencies are real, documents are not: in 2 GB made from 50 MB, a paragraph occurs about forty times, each time among
others.
"""

import argparse
import json
import random
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.sources import Split
from pipeline.text.records import Document


def paragraphs_of(inputs: list[str]) -> list[str]:
    """Return every paragraph of these inputs that has 20 characters or more."""
    found = []
    for source in find_sources(inputs):
        for item in read_documents(Split(source, 0, None)):
            if isinstance(item, Document):
                found += [line for line in item.text.decode().split("\n") if len(line) >= 20]
    return found


def documents(paragraphs: list[str], megabytes: float, seed: int = 0) -> Iterator[str]:
    """Yield documents of 4 to 60 paragraphs until they have this many megabytes of text."""
    draw, size = random.Random(seed), 0
    while size < megabytes * 1e6:
        text = "\n\n".join(draw.choices(paragraphs, k=draw.randint(4, 60)))
        size += len(text.encode())
        yield text


def write_corpus(path: Path, inputs: list[str], megabytes: float, seed: int = 0) -> None:
    paragraphs = paragraphs_of(inputs)
    with path.open("w") as file:
        for text in documents(paragraphs, megabytes, seed):
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", nargs="*", default=[str(files("jobs") / "sample")])
    parser.add_argument("--megabytes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file to write; default: only print the number of documents")
    arguments = parser.parse_args()
    if arguments.out:
        write_corpus(arguments.out, arguments.input, arguments.megabytes, arguments.seed)
    else:
        made = sum(1 for _ in documents(paragraphs_of(arguments.input), arguments.megabytes, arguments.seed))
        print(f"{made} documents of {arguments.megabytes} MB; --out writes them")


if __name__ == "__main__":
    main()
