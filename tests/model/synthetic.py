"""A small data set in the shard format, made of sequences that a model can learn, for tests of the reading half.

Written from docs/shard-format.md with tarfile, pyarrow and tokenizers alone. A document counts upwards through the
vocabulary in steps of its own; a true next segment goes on counting, a random one belongs to another document.
"""

import hashlib
import io
import json
import random
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers.implementations import BertWordPieceTokenizer

from bertloom.tokenizer_files import TokenizerFile

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CLS, SEP, MASK = 2, 3, 4
NUM_WORDS = 48
VOCABULARY = "".join(word + "\n" for word in SPECIAL + [f"w{i}" for i in range(NUM_WORDS)]).encode()
UINT16 = pa.uint16()


def non_null_list(item: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("item", item, nullable=False))


def make_schema(max_seq_length: int, copy: int, id_type: pa.DataType, vocabulary_sha256: str) -> pa.Schema:
    columns = {
        "input_ids": non_null_list(id_type),
        "segment_b_start": pa.uint16(),
        "masked_lm_positions": non_null_list(pa.uint16()),
        "masked_lm_ids": non_null_list(id_type),
        "next_sentence_label": pa.int8(),
        "document_a": pa.uint64(),
        "token_a": pa.uint32(),
        "document_b": pa.uint64(),
        "token_b": pa.uint32(),
    }
    metadata = {
        "format_version": "1",
        "max_seq_length": str(max_seq_length),
        "copy": str(copy),
        "vocabulary_sha256": vocabulary_sha256,
    }
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()], metadata)


def make_example(draw: random.Random, max_seq_length: int, pairs: bool) -> dict:
    def count(start: int, stride: int, number: int) -> list[int]:
        return [len(SPECIAL) + (start + stride * i) % NUM_WORDS for i in range(number)]

    room = draw.randint(6, max_seq_length - 3)
    size_a = draw.randint(2, room - 3)
    start, stride, label = draw.randrange(NUM_WORDS), draw.choice((1, 2, 3)), draw.randint(0, 1)
    ids = [CLS, *count(start, stride, size_a), SEP]
    segment_b_start = len(ids)
    if pairs:
        follows = (start + stride * size_a, stride) if label == 0 else (draw.randrange(NUM_WORDS), 5)
        ids += [*count(*follows, room - size_a), SEP]
    else:
        label = -1
    candidates = [i for i, word in enumerate(ids) if word not in (CLS, SEP)]
    positions = sorted(draw.sample(candidates, max(1, int(len(ids) * 0.15 + 0.5))))
    masked_ids = [ids[position] for position in positions]
    for position in positions:
        chance = draw.random()
        word = len(SPECIAL) + draw.randrange(NUM_WORDS)
        ids[position] = MASK if chance < 0.8 else word if chance < 0.9 else ids[position]
    return {
        "input_ids": ids,
        "segment_b_start": segment_b_start,
        "masked_lm_positions": positions,
        "masked_lm_ids": masked_ids,
        "next_sentence_label": label,
        "document_a": draw.getrandbits(64),
        "token_a": 0,
        "document_b": draw.getrandbits(64),
        "token_b": 0,
    }


def write_shard(directory: Path, path: str, examples: list[dict], schema: pa.Schema, per_member: int) -> dict:
    """Writes a shard and gives back its row of shards.parquet, but for the names."""
    number = Path(path).stem
    offsets, sizes, counts = [], [], []
    (directory / path).parent.mkdir(parents=True, exist_ok=True)
    with open(directory / path, "wb") as file:
        tar = tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        for member, start in enumerate(range(0, len(examples), per_member)):
            batch = pa.RecordBatch.from_pylist(examples[start : start + per_member], schema=schema)
            payload = io.BytesIO()
            with pa.ipc.new_file(payload, schema) as writer:
                writer.write_batch(batch)
            info = tarfile.TarInfo(f"{number}-{member:06d}.arrow")
            info.size = payload.tell()
            offsets.append(file.tell() + 512)
            sizes.append(info.size)
            counts.append(batch.num_rows)
            payload.seek(0)
            tar.addfile(info, payload)
        file.write(bytes(1024))
    content = (directory / path).read_bytes()
    return {
        "path": path,
        "number": int(number),
        "examples": len(examples),
        "tokens": sum(len(example["input_ids"]) for example in examples),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "member_offsets": offsets,
        "member_bytes": sizes,
        "member_examples": counts,
    }


def place_of(shard: Path, column: str, buffer: int) -> int:
    """Where in a shard a buffer of its first member's column begins: of lists 1 are the offsets, of scalars the items."""
    content = pa.py_buffer(shard.read_bytes())
    size = int(content[124:135].to_pybytes(), 8)
    array = pa.ipc.open_file(content[512 : 512 + size]).get_batch(0).column(column)
    values = array.buffers()[buffer] if buffer < 2 else array.values.buffers()[1]
    return values.address - content.address


COLUMNS_OF_SHARDS = {
    "path": pa.string(),
    "split": pa.string(),
    "max_seq_length": pa.int32(),
    "copy": pa.int32(),
    "number": pa.int32(),
    "examples": pa.int64(),
    "tokens": pa.int64(),
    "bytes": pa.int64(),
    "sha256": pa.string(),
    "member_offsets": pa.list_(pa.int64()),
    "member_bytes": pa.list_(pa.int64()),
    "member_examples": pa.list_(pa.int32()),
}
SHARDS_SCHEMA = pa.schema([pa.field(name, kind, nullable=False) for name, kind in COLUMNS_OF_SHARDS.items()])


def write_data_set(
    directory: Path,
    *,
    rows: tuple[int, ...] = (1500, 1100),
    num_shards: int = 2,
    num_validation: int = 200,
    per_member: int = 1024,
    max_seq_lengths: tuple[int, ...] = (32,),
    pairs: bool = True,
    seed: int = 0,
    id_type: pa.DataType = UINT16,
    vocabulary: bytes = VOCABULARY,
    tokenizer: TokenizerFile | None = None,
) -> Path:
    """Writes a data set with rows[c] training examples in copy c of each length, and gives back its folder.

    tokenizer: one that is not BERT's, instead of a vocabulary.
    """
    directory.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    files = tokenizer.files() if tokenizer else {"vocab.txt": vocabulary}
    for name, content in files.items():
        (directory / name).write_bytes(content)
    first = next(iter(files))
    digest = hashlib.sha256(files[first]).hexdigest()
    num_words = len(tokenizer.tokens) if tokenizer else len(vocabulary.splitlines())
    if tokenizer is None:
        BertWordPieceTokenizer(str(directory / "vocab.txt")).save(str(directory / "tokenizer.json"))
    shards = []
    for split, sizes in (("train", rows), ("validation", (num_validation,) * len(rows))):
        for length in max_seq_lengths:
            for copy, size in enumerate(sizes):
                schema = make_schema(length, copy, id_type, digest)
                examples = [make_example(draw, length, pairs) for _ in range(size)]
                for number in range(num_shards):
                    part = examples[size * number // num_shards : size * (number + 1) // num_shards]
                    if part:
                        path = f"{split}/seq{length}/copy{copy}/{number:05d}.tar"
                        names = {"split": split, "max_seq_length": length, "copy": copy}
                        shards.append(write_shard(directory, path, part, schema, per_member) | names)
    pq.write_table(pa.Table.from_pylist(shards, schema=SHARDS_SCHEMA), directory / "shards.parquet")
    manifest = {
        "format": "bertloom-dataset",
        "format_version": 1,
        "configuration": {
            "max_seq_length": list(max_seq_lengths),
            "dupe_factor": len(rows),
            "seed": seed,
            "masked_lm_prob": 0.15,
            "max_predictions_per_seq": [int(length * 0.15 + 0.5) + 1 for length in max_seq_lengths],
            "mask_token_prob": 0.8,
            "random_token_prob": 0.1,
            "validation_fraction": 0.1,
        },
        "masking": {"scheme": "token", "can_be_redrawn": True},
        "vocabulary": {"sha256": digest, "size": num_words} | ({"file": first} if tokenizer else {}),
        "versions": {},
        "counters": {
            **dict.fromkeys(("documents_in", "documents_used", "documents_rejected", "documents_duplicate"), 0),
            "sentences": 0,
            "tokens": 0,
            "text_bytes": 0,
            "rejected": {},
            "passed_over": {},
            "cleaned": {},
            "pairs": {},
            "examples": {"train": 0, "validation": 0},
        },
        "notes": [],
        "inputs": [],
        "shards_digest": "0" * 64,
        "documents": {},
        "files": {
            name: hashlib.sha256((directory / name).read_bytes()).hexdigest()
            for name in ("tokenizer.json", *files)
            if name != "vocab.txt"
        },
        "shards_parquet": {
            "sha256": hashlib.sha256((directory / "shards.parquet").read_bytes()).hexdigest(),
            "rows": len(shards),
        },
    }
    write_manifest(directory, manifest)
    return directory


def write_manifest(directory: Path, manifest: dict) -> None:
    """Writes manifest.json with its own checksum."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    digest = hashlib.sha256((json.dumps(rest, indent=1) + "\n").encode()).hexdigest()
    (directory / "manifest.json").write_text(json.dumps(rest | {"sha256": digest}, indent=1) + "\n")
