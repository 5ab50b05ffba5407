"""The summary that `bertloom preprocess` prints of a finished data set."""

from collections.abc import Sequence
from typing import Any

from bertloom.counts import counted
from pipeline.examples.configuration import ExamplesConfig
from pipeline.stages.exclusion import IN_TEST_SET


def print_summary(manifest: dict[str, Any]) -> None:
    """Print what a finished data set holds, in a few lines."""
    counters, configuration = manifest["counters"], manifest["configuration"]
    print(f"{manifest['out']}: complete")
    print(
        f"  documents  {counters['documents_in']:>13,} in = {counters['documents_used']:,} used"
        f" + {counters['documents_rejected']:,} rejected + {counters['documents_duplicate']:,} duplicate"
    )
    if "documents_near_duplicate" in counters:
        near = counters["documents_near_duplicate"]
        print(f"    duplicate {near:>12,} are near duplicates, listed in near-duplicates.parquet")
    for name, numbers in counters.get("duplicates_of", {}).items():
        print(f"    duplicate {numbers['equal']:>12,} are equal to documents of {name}")
        if "near" in numbers:
            print(f"    duplicate {numbers['near']:>12,} are near duplicates of documents of {name}")
    for reason, number in counters["rejected"].items():
        print(f"    rejected {number:>13,} {reason}")
        for one in manifest["excluded"]["sets"] if reason == IN_TEST_SET else ():
            print(f"      shared {one['documents']:>13,} with {one['name']}")
    for reason, number in counters["passed_over"].items():
        print(f"    ignored  {number:>13,} {reason}")
    for step, number in counters["cleaned"].items():
        print(f"    cleaned  {number:>13,} {step}")
    if counters["characters_replaced"]:
        print(f"  replaced   {counters['characters_replaced']:>13,} bytes that are not UTF-8, by U+FFFD")
    print(
        f"  text       {counters['text_bytes'] / 1e6:>13,.1f} MB,"
        f" {counted(counters['sentences'], 'sentence')}, {counted(counters['tokens'], 'token')}"
    )
    pairs, objective = counters["pairs"], ExamplesConfig.of(configuration).objective
    copies = counted(configuration["dupe_factor"], "copy", "copies")
    for length in configuration["max_seq_length"]:
        line = f"  length {length:<4}{pairs[f'pairs/{length}']:>14,} examples in {copies}"
        if objective.predicts_label:
            random, dropped = pairs[f"pairs-random/{length}"], pairs.get(f"pairs-dropped/{length}", 0)
            line += f", {random:,} {objective.labels[1]}, {counted(dropped, 'pair')} dropped"
        print(line)
    print(f"  held out   {counters['examples']['validation']:>13,} validation examples")
    for line in lines_of_sources(manifest.get("sources", [])):
        print(line)
    print(f"  digest of all shards {manifest['shards_digest']}")


def lines_of_sources(sources: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines of the summary about the sources of --inputs, if there are several."""
    lines = []
    for source in sources if len(sources) > 1 else ():
        counters = source["counters"]
        lines.append(
            f"  source {source['name']}: {counted(counters['documents_in'], 'document')} in = "
            f"{counters['documents_used']:,} used + {counters['documents_rejected']:,} rejected + "
            f"{counters['documents_duplicate']:,} duplicate; {counted(counters['tokens'], 'token')}"
        )
        lines += [f"    rejected {number:>13,} {reason}" for reason, number in counters["rejected"].items()]
    return lines
