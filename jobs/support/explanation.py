"""The text of `bertloom explain`."""

import textwrap
from typing import Any

MASK_KINDS = (("mask", "[MASK]"), ("random", "another word"), ("kept", "left as it is"))


def explanation_lines(found: dict[str, Any]) -> list[str]:
    """Return what `Explainer.explain` found, as lines of text."""
    example = found["example"]
    lines = [
        f"example {found['index']}: {found['split']}, length {found['max_seq_length']}, copy {found['copy']}",
        f"  {found['shard']}, member {found['member']}, row {found['row']}",
        "",
        f"  {example['label']}, {example['tokens']} tokens, {example['masks']} masks",
        f"  A {example['a']}",
        *([f"  B {example['b']}"] if "b" in found else []),
    ]
    for name in ("a", "b"):
        if name in found:
            lines += ["", *_segment_lines(name.upper(), found[name])]
    if found["drawn"]:
        lines += ["", "How it was drawn", *(f"  {sentence}" for sentence in found["drawn"])]
    lines += ["", f"Masks: {example['masks']} of {example['tokens']} tokens, chosen as {found['masking']}"]
    for kind, what in MASK_KINDS:
        of_kind = [mask for mask in found["masks"] if mask["kind"] == kind]
        words = [f"{m['position']} {m['truth']}" + (f" → {m['there']}" if kind == "random" else "") for m in of_kind]
        if words:
            text = f"{what} ({len(words)}): {', '.join(words)}"
            lines += textwrap.wrap(text, 118, initial_indent="  ", subsequent_indent="    ")
    return [*lines, "", *_agreement_lines(found)]


def _segment_lines(name: str, segment: dict[str, Any]) -> list[str]:
    lines = [f"{name} is from document {segment['document']}"]
    if "source" in segment:
        piece = f", piece {segment['piece']} of its text" if segment["piece"] else ""
        lines.append(f"  {segment['path']}, {records_text(segment)}{piece}")
        lines.append(f"  tokens {segment['tokens'][0]:,} to {segment['tokens'][1]:,}")
    if "not_read" in segment:
        return [*lines, f"  its text cannot be shown: {segment['not_read']}"]
    first, end = segment["sentences"]
    lines[-1] += (
        f", sentences {first} to {end} of {segment['num_sentences']}, "
        f"bytes {segment['bytes'][0]:,} to {segment['bytes'][1]:,} of its cleaned text"
    )
    for title, key in (("before", "before"), (name, "text"), ("after", "after")):
        lines.append(f"  {title:<7}{' '.join(segment[key].split())}")
    return lines


def records_text(segment: dict[str, Any]) -> str:
    """Return which records of its file a document is made of."""
    first, last = segment["position"], segment.get("last_record", segment["position"])
    if first == last:
        return f"the record at {segment['unit']} {first:,}"
    return f"the records at {segment['unit']}s {first:,} to {last:,}"


def _agreement_lines(found: dict[str, Any]) -> list[str]:
    if found["agrees"] is None:
        return [f"Not recomputed: {found['not_recomputed']}"]
    made_again = "Made again from the source files and the seed"
    if found["agrees"]:
        return [
            f"{made_again}: all {len(found['columns'])} columns agree with the shard, "
            f"and the whole shard has the same sha256"
        ]
    lines = [f"{made_again}: {len(found['differ'])} columns DIFFER from the shard"]
    for name, values in found["differ"].items():
        lines += [f"  {name}", f"    shard    {values['shard']}", f"    made now {values['made_now']}"]
    if not found["shard_agrees"]:
        lines.append(
            "  the shard made now has another sha256 than shards.parquet lists: check whether another version made it"
        )
    return lines
