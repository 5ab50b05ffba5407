"""Files with a checksum, for what a job leaves for its next start: a damaged one is found before it is used.

    magic | CRC-32 of the body, 8 bytes | body

Later reads may take a part of a file, which this checksum does not check. So each file is checked whole before a job uses it
again.
"""

import zlib
from collections.abc import Sequence

from bertloom import storage
from bertloom.json_files import Damaged

MAGIC = b"BLSEAL01"
BODY = len(MAGIC) + 8  # where the body begins
_READ = 1 << 20


def write_sealed(path: str, chunks: Sequence[bytes]) -> None:
    """Write the chunks with their checksum as one file, which exists whole or not at all."""
    checksum = 0
    for chunk in chunks:
        checksum = zlib.crc32(chunk, checksum)
    storage.write_whole(path, [MAGIC, checksum.to_bytes(8, "little"), *chunks])


def is_sealed(path: str) -> bool:
    """Return whether there is a file of this path that is as it was written."""
    try:
        with storage.open_read(path, ahead=storage.MOST_AHEAD) as file:
            head, checksum = file.read(BODY), 0
            while chunk := file.read(_READ):
                checksum = zlib.crc32(chunk, checksum)
    except (FileNotFoundError, IsADirectoryError):
        return False
    return head == MAGIC + checksum.to_bytes(8, "little")


def read_sealed(path: str) -> bytes:
    """Return the body of a file. Damaged if it is not as it was written."""
    content = storage.read(path)
    if content[:BODY] != MAGIC + zlib.crc32(content[BODY:]).to_bytes(8, "little"):
        raise Damaged(f"{path} is damaged: remove it, and the next start makes it again")
    return content[BODY:]
