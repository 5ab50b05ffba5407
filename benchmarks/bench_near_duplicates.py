"""Measure how many near duplicates planted in real text are found, and what the search costs.

    python benchmarks/bench_near_duplicates.py --input 'corpus_en/*.jsonl.gz' --vocab vocab.txt

For each similarity some documents are copied, and random words of the copies are changed until the exact similarity of the
shingles is just above it. Then the functions of the job search all documents and copies on one core. The report compares
their CPU time with that of `encode_batch_fast` of `tokenizers` on the same text. Needs a few GB of memory for large input.
Without arguments the text is the shipped sample.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from setting import add_text_arguments, header, inputs_of, vocabulary_of, write_report

from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.splitting import split_source
from pipeline.stages.similar_documents import Search, find_pairs, num_hash_ranges, verify_pairs, write_sketch
from pipeline.text.minhash import shingles, similarity
from pipeline.text.records import Document
from pipeline.tokenizer import TokenizeConfig, make_document_tokenizer
from pipeline.tokens import write_part
from pipeline.vocabulary import Vocabulary, make_tokenizer
from pipeline.vocabulary_files import read_vocabulary

SIMILARITIES = (0.75, 0.8, 0.85, 0.9, 0.95)


def read(patterns: list[str], megabytes: float) -> list[str]:
    texts, size = [], 0
    for source in find_sources(patterns, []):
        for split in split_source(source, 1 << 23):
            for item in read_documents(split):
                if isinstance(item, Document) and 400 <= len(item.text) <= 200_000:
                    texts.append(item.text.decode())
                    size += len(item.text)
                    if size >= megabytes * 1e6:
                        return texts
    return texts


def edited(text: str, least: float, draw: random.Random, words: list[str], hashes) -> str:
    """Return the text with as many random words changed as possible while its similarity stays at least `least`."""
    parts, original = text.split(" "), hashes(text)
    step = max(1, len(parts) // 200)
    while True:
        changed = list(parts)
        for _ in range(step):
            changed[draw.randrange(len(changed))] = draw.choice(words)
        shared, either = similarity(original, hashes(" ".join(changed)))
        if shared < least * either:
            if step == 1:
                return " ".join(parts)
            step //= 2
        else:
            parts = changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_text_arguments(parser)
    parser.add_argument("--similarity", type=float, default=0.8)
    parser.add_argument("--megabytes", type=float, default=20, help="limit of the text to read from the input")
    parser.add_argument("--planted", type=int, default=100, help="limit of the copies at each similarity")
    parser.add_argument("--name", default="near_duplicates", help="name of the file in benchmarks/results/")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(arguments, read_vocabulary(vocabulary_of(arguments, Path(folder))), folder)
    write_report(arguments.name, lines, is_sample=not arguments.input)


def measure(arguments: argparse.Namespace, vocabulary: Vocabulary, folder: str) -> list[str]:
    """Return the lines of the report."""
    texts = list(dict.fromkeys(read(inputs_of(arguments), arguments.megabytes)))
    tokenize = make_document_tokenizer(TokenizeConfig(), vocabulary)
    draw = random.Random(1)
    words = " ".join(texts[:50]).split()

    def hashes(text: str):
        block = tokenize([Document(text.encode(), 0)])
        return shingles(block.ids, block.documents["num_tokens"])[0]

    planted: list[tuple[float, str, str]] = []
    short = [text for text in texts if len(text) < 20_000]
    chosen = draw.sample(short, min(len(short), arguments.planted * len(SIMILARITIES)))
    for i, text in enumerate(chosen):
        least = SIMILARITIES[i % len(SIMILARITIES)]
        planted.append((least, text, edited(text, least, draw, words, hashes)))
    everything = [*texts, *(copy for _, _, copy in planted)]
    size = sum(len(text.encode()) for text in everything)

    documents = [Document(text.encode(), i) for i, text in enumerate(everything)]
    parts, sets = [], {}
    for i in range(0, len(documents), 2000):
        block = tokenize(documents[i : i + 2000])
        values, counts = shingles(block.ids, block.documents["num_tokens"])
        for row, mine in zip(block.documents, np.split(values, np.cumsum(counts)[:-1])):
            sets[int(row["position"])] = (int(row["id"]), mine)
        record = {"name": f"p{i}", "source": f"{i:09d}", "start": 0, "start_piece": 0, "num_files": 1}
        record |= {"next_file": 1, "end": 1, "end_piece": 0, "last": True, "text_bytes": 1}
        parts.append(write_part(f"{folder}/p{i}", record, [block], [], np.dtype(block.ids.dtype)))
    search = Search(arguments.similarity, folder, folder)
    begun = time.process_time()
    for part in parts:
        write_sketch(part, search)
    count = num_hash_ranges(parts, arguments.similarity)
    pairs = [find_pairs(i, count, parts, search) for i in range(count)]
    rows = verify_pairs(np.unique(np.concatenate(pairs)), list(enumerate(parts)), search)
    seconds = time.process_time() - begun

    reference = make_tokenizer(vocabulary, True, None)
    begun = time.process_time()
    for i in range(0, len(everything), 100):
        reference.encode_batch_fast(everything[i : i + 100], add_special_tokens=False)
    tokenizers_seconds = time.process_time() - begun

    left_out = set(rows["id"].tolist())
    place = {text: i for i, text in enumerate(everything)}
    lines = header(
        "Near duplicates",
        f"{len(everything):,} documents, {size / 1e6:.1f} MB, {len(planted)} of them copies with words changed at random "
        f"until the exact similarity is just above the planted one. One core; {len(parts)} parts.",
        *("numpy", "tokenizers"),
    )
    lines += ["| planted at | mean similarity | left out |", "|---|---|---|"]
    for least in SIMILARITIES:
        copies = [(sets[place[a]], sets[place[b]]) for like, a, b in planted if like == least and a != b]
        exact = [similarity(a[1], b[1]) for a, b in copies]
        found = sum(max(a[0], b[0]) in left_out for a, b in copies)
        mean = np.mean([shared / either for shared, either in exact])
        lines.append(f"| {least:.2f} | {mean:.3f} | {found} of {len(copies)} |")
    return [
        *lines,
        "",
        f"{sum(map(len, pairs)):,} pairs were compared, {len(rows):,} documents left out; each is similar by its exact set "
        f"of shingles. A copy planted below {arguments.similarity:g} is left out only if it is similar to another document.",
        "",
        "| | seconds | MB/s |",
        "|---|---|---|",
        f"| the search: signatures, bands, comparisons | {seconds:.2f} | {size / 1e6 / seconds:.1f} |",
        f"| `encode_batch_fast` | {tokenizers_seconds:.2f} | {size / 1e6 / tokenizers_seconds:.1f} |",
        "",
        f"Ratio **{seconds / tokenizers_seconds:.3f}**.",
    ]


if __name__ == "__main__":
    main()
