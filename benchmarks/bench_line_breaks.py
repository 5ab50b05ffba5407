"""Measure how many documents the rule for single line breaks (`--line-breaks auto`) reads rightly, and its speed.

    python benchmarks/bench_line_breaks.py --input corpus_en
    python benchmarks/bench_line_breaks.py --input corpus_zh --name line_breaks_zh

A line break ends a paragraph in the input. Each document with two or more paragraphs is written again in several shapes:
with a line for each paragraph, and wrapped at 60, 72 and 100 columns with blank lines between the paragraphs and without.
Without arguments the text is the shipped English sample.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from setting import header, inputs_of, write_report
from wrapping import shapes

from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.sources import ReadConfig
from pipeline.inputs.splitting import split_source
from pipeline.text.line_breaks import SAMPLE_BYTES, decide
from pipeline.text.records import Document, paragraphs


def main(arguments: argparse.Namespace) -> None:
    documents, right, wrong, num_bytes, seconds = (Counter() for _ in range(5))
    for source in find_sources(inputs_of(arguments), config=ReadConfig(line_breaks="paragraph")):
        for split in split_source(source, 8_000_000):
            for document in read_documents(split):
                lines = (
                    document.text[: 2 * SAMPLE_BYTES].decode(errors="ignore") if isinstance(document, Document) else ""
                )
                if "\n" not in lines:
                    continue
                for shape, (text, expected) in shapes(lines.split("\n")).items():
                    raw, _ = paragraphs(text)
                    start = time.process_time()
                    found = decide(raw, "auto")
                    seconds[shape] += time.process_time() - start
                    num_bytes[shape] += len(raw)
                    documents[shape] += 1
                    right[shape] += found == expected
                    wrong[source.name, shape] += found != expected
    write_report(arguments.name, _report(documents, right, wrong, num_bytes, seconds), not arguments.input)


def _report(documents: Counter, right: Counter, wrong: Counter, num_bytes: Counter, seconds: Counter) -> list[str]:
    what = (
        "Documents with two or more paragraphs. MB/s: text of one document after another through the rule, on one core."
    )
    lines = header("Single line breaks, --line-breaks auto", what, "numpy", "pyarrow")
    lines += ["| shape | documents | right | | MB/s | wrong, by file |", "|---|---|---|---|---|---|"]
    for shape, number in documents.items():
        files = ", ".join(
            f"{name} {count}" for (name, found), count in sorted(wrong.items()) if found == shape and count
        )
        rate = num_bytes[shape] / seconds[shape] / 1e6
        lines.append(
            f"| {shape} | {number:,} | {right[shape]:,} | {100 * right[shape] / number:.2f} % | {rate:.0f} | {files} |"
        )
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--input", nargs="*", help="text, as for `bertloom preprocess`; default: the shipped sample")
    parser.add_argument("--name", default="line_breaks", help="name of the report in benchmarks/results/")
    main(parser.parse_args())
