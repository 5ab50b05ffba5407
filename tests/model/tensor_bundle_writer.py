"""Writes TensorFlow's tensor bundles for tests: slow, obvious, and apart from the reader.

The messages are those of tensor_bundle.proto, made by the library protobuf; the table is that of LevelDB's
doc/table_format.md, with shared beginnings of keys, restarts and several blocks.
"""

from pathlib import Path

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

DTYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}
KINDS = descriptor_pb2.FieldDescriptorProto
MESSAGES = {
    "Version": [("producer", 1, KINDS.TYPE_INT32)],
    "Header": [
        ("num_shards", 1, KINDS.TYPE_INT32),
        ("endianness", 2, KINDS.TYPE_INT32),
        ("version", 3, ".test.Version"),
    ],
    "Dim": [("size", 1, KINDS.TYPE_INT64), ("name", 2, KINDS.TYPE_STRING)],
    "Shape": [("dim", 2, ".test.Dim"), ("unknown_rank", 3, KINDS.TYPE_BOOL)],
    "Entry": [
        ("dtype", 1, KINDS.TYPE_INT32),
        ("shape", 2, ".test.Shape"),
        ("shard_id", 3, KINDS.TYPE_INT32),
        ("offset", 4, KINDS.TYPE_INT64),
        ("size", 5, KINDS.TYPE_INT64),
        ("crc32c", 6, KINDS.TYPE_FIXED32),
    ],
}


def message_classes() -> dict[str, type]:
    file = descriptor_pb2.FileDescriptorProto(name="test.proto", package="test", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            label = KINDS.LABEL_REPEATED if field == "dim" else KINDS.LABEL_OPTIONAL
            if isinstance(kind, str):
                message.field.add(name=field, number=number, type=KINDS.TYPE_MESSAGE, type_name=kind, label=label)
            else:
                message.field.add(name=field, number=number, type=kind, label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = {name: pool.FindMessageTypeByName(f"test.{name}") for name in MESSAGES}
    return {name: message_factory.GetMessageClass(descriptor) for name, descriptor in names.items()}


PROTOS = message_classes()


def crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


TABLE = crc_table()


def slow_crc32c(data: bytes) -> int:
    state = 0xFFFFFFFF
    for byte in data:
        state = TABLE[(state ^ byte) & 255] ^ (state >> 8)
    return state ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    checksum = slow_crc32c(data)
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def block(rows: list[tuple[bytes, bytes]], every: int = 16) -> bytes:
    """A block with its restarts: every 16th key is written whole."""
    out, restarts, last = b"", [], b""
    for number, (key, value) in enumerate(rows):
        shared = 0
        if number % every == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    restarts = restarts or [0]
    return out + b"".join(at.to_bytes(4, "little") for at in restarts) + len(restarts).to_bytes(4, "little")


def write_bundle(
    stem: Path, tensors: dict[str, np.ndarray], num_shards: int = 1, rows_per_block: int = 20
) -> list[tuple[bytes, bytes]]:
    """Write STEM.index and STEM.data-*, and return the rows of the index."""
    rows = [(b"", PROTOS["Header"](num_shards=num_shards, version={"producer": 1}).SerializeToString())]
    data = [b""] * num_shards
    for number, name in enumerate(sorted(tensors)):
        tensor, shard = tensors[name], number % num_shards
        content = tensor.tobytes()
        entry = PROTOS["Entry"](
            dtype=DTYPES[str(tensor.dtype)],
            shape={"dim": [{"size": size} for size in tensor.shape]},
            shard_id=shard,
            offset=len(data[shard]),
            size=len(content),
            crc32c=masked(content),
        )
        rows.append((name.encode(), entry.SerializeToString()))
        data[shard] += content
    for shard, content in enumerate(data):
        Path(f"{stem}.data-{shard:05d}-of-{num_shards:05d}").write_bytes(content)
    write_table(Path(f"{stem}.index"), rows, rows_per_block)
    return rows


def write_table(
    path: Path, rows: list[tuple[bytes, bytes]], rows_per_block: int = 20, raw: bytes | None = None
) -> None:
    """Write a table; `raw` is the content of its only block, instead of the rows."""
    out = b""

    def add(content: bytes) -> bytes:
        nonlocal out
        handle = varint(len(out)) + varint(len(content))
        out += content + b"\0" + masked(content + b"\0").to_bytes(4, "little")
        return handle

    groups = [rows[at : at + rows_per_block] for at in range(0, len(rows), rows_per_block)]
    handles = [(group[-1][0] + b"\xff", add(block(group))) for group in groups] if raw is None else [(b"z", add(raw))]
    meta = add(block([]))
    footer = meta + add(block(handles, every=1))
    path.write_bytes(out + footer.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little"))
