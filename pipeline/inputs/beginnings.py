"""The beginning of a split, read to estimate what the rest holds."""

from dataclasses import dataclass

from bertloom import storage
from pipeline.inputs.documents import read_documents
from pipeline.inputs.formats.registry import format_named
from pipeline.inputs.sources import Source, Split
from pipeline.inputs.streams import first_bytes
from pipeline.text.cleaning import CleanConfig
from pipeline.text.records import Document, Record


@dataclass(frozen=True)
class Beginning:
    """The first records of a split."""

    records: list[Record]
    text_per_byte: float
    """Bytes of text per byte of the file, about."""
    is_whole: bool
    """Whether these are all records of the split."""

    @property
    def documents(self) -> list[Document]:
        return [record for record in self.records if isinstance(record, Document)]


def read_beginning(split: Split, config: CleanConfig, num_bytes: int, num_records: int | None = None) -> Beginning:
    """Return the records up to about `num_bytes` of text, and at most `num_records`."""
    records: list[Record] = []
    size, following = 0, None
    for item in read_documents(split, config=config, is_whole=False):
        if size >= num_bytes or len(records) == num_records:
            following = item
            break
        records.append(item)
        size += len(item.text) if isinstance(item, Document) else 0
    if following is None:
        return Beginning(records, size / max(1, split.num_bytes), True)
    return Beginning(records, _text_per_byte(split.source, size, following.position - records[0].position), False)


def _text_per_byte(source: Source, num_text_bytes: int, num_positions: int) -> float:
    file_format = format_named(source.format)
    share = file_format.text_per_byte
    if file_format.position_unit == "byte" and num_positions:  # 0: pieces of one text, whose end is not known
        share = num_text_bytes / num_positions
    if source.codec:
        with storage.open_read(source.path) as file:
            share *= len(first_bytes(file, source.codec)) / max(1, file.tell())
    return share
