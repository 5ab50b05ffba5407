"""What a file holds, by its name and its first bytes. Where the two contradict each other nothing is guessed."""

import io
import re
from typing import BinaryIO

from pipeline.inputs.streams import CODECS, first_bytes

FORMATS = {
    "txt": "plain text",
    "jsonl": "JSON Lines",
    "parquet": "Parquet",
    "arrow": "Arrow IPC",
    "mediawiki": "a MediaWiki dump",
    "warc": "a web archive",
}
TABLES = ("parquet", "arrow")  # positions in these are rows; in all others, bytes

_ENDINGS = {
    ".txt": "txt",
    ".jsonl": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".xml": "mediawiki",
    ".warc": "warc",
    ".wet": "warc",
}
_PART_OF_DUMP = re.compile(r"\.xml(-[^/\\.]*)?$")  # pages-articles1.xml-p1p41242
_CODEC_MAGIC = {
    "gzip": rb"\x1f\x8b\x08",
    "bzip2": rb"BZh[1-9](1AY&SY|\x17rE8P\x90)",
    "zstd": rb"\x28\xb5\x2f\xfd",
    "xz": rb"\xfd7zXZ\0",
}
_FORMAT_MAGIC = {
    "parquet": rb"PAR1\x15",
    "arrow": rb"ARROW1\0\0|\xff{4}[\s\S]{4}[\x04-\x40]\0\0\0",  # a file; a stream, as `datasets` writes
    "warc": rb"WARC/1\.",
    "mediawiki": rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?<mediawiki\b",
}
_STRANGERS = {
    "a zip archive": rb"PK\x03\x04",
    "a PDF": rb"%PDF-",
    "a 7z archive": rb"7z\xbc\xaf\x27\x1c",
    "lz4": rb"\x04\x22M\x18",
}


def position_unit(form: str) -> str:
    """What positions in files of this format count: row or byte."""
    return "row" if form in TABLES else "byte"


def expected_names() -> str:
    """The names that are understood, for errors."""
    return f"a name that ends in {', '.join(_ENDINGS)}, plain or with {', '.join(CODECS)} behind it"


def format_by_name(path: str) -> tuple[str | None, str | None]:
    """(format, codec) by the name's endings; None where they tell nothing."""
    codec = next((codec for ending, codec in CODECS.items() if path.endswith(ending)), None)
    stem = path.rpartition(".")[0] if codec else path
    if _PART_OF_DUMP.search(stem):
        return "mediawiki", codec
    return next((form for ending, form in _ENDINGS.items() if stem.endswith(ending)), None), codec


def find_format(path: str, head: bytes, file: BinaryIO) -> tuple[str, str | None, bytes]:
    """(format, codec, the first uncompressed bytes) of an open file that begins with `head`; ValueError where its name
    and its first bytes contradict each other, or neither tells."""
    form, codec = format_by_name(path)
    packed = _look(head, _CODEC_MAGIC)
    if packed and packed != codec:
        raise ValueError(_contradiction(path, f"those of {packed}", codec or "not compressed"))
    if codec:
        if stranger := _look(head, _FORMAT_MAGIC):
            raise ValueError(_contradiction(path, f"those of {FORMATS[stranger]}", codec))
        head = first_bytes(io.BytesIO(head), codec) or first_bytes(file, codec)  # a block of bzip2 may be longer
        if again := _look(head, _CODEC_MAGIC):
            raise ValueError(f"{path}: is compressed twice: inside it is {again} again; unpack it once")
    if stranger := _look(head, _STRANGERS):
        raise ValueError(f"{path}: is {stranger}: unpack it, or take its text out, first")
    found = _look(head, _FORMAT_MAGIC)
    if form is None and found is None:
        raise ValueError(f"{path}: cannot tell its format by its name; expected {expected_names()}")
    if form and found != (form if form in _FORMAT_MAGIC and head else None):
        bytes_say = f"those of {FORMATS[found]}" if found else f"not those of {FORMATS[form]}"
        raise ValueError(_contradiction(path, bytes_say, FORMATS[form]))
    return found or form or "", codec, head


def _contradiction(path: str, bytes_say: str, name_says: str) -> str:
    return f"{path}: its first bytes are {bytes_say}, but its name says {name_says}; give it the name of what it is"


def _look(head: bytes, magic: dict[str, bytes]) -> str | None:
    return next((name for name, begin in magic.items() if re.match(begin, head)), None)
