"""The forms of files of rows, the form of a file by its name, and its records as a stream.

The case of an ending does not matter. Text may be compressed as .gz. It is UTF-8, or UTF-16 with a byte order mark. Lines
end with \\n, \\r\\n, or \\r; blank lines that mean nothing in a form are ignored. An unusable record is returned as a BadRow
in its place, so that the caller can stop, or count it and continue. No file makes a reader crash, or hold more than a
record, a batch or a bounded number of bytes.
"""

from collections.abc import Container
from pathlib import Path

from model.tasks.formats.conll import CONLL
from model.tasks.formats.conllu import CONLLU
from model.tasks.formats.delimited import CSV, TSV
from model.tasks.formats.json_documents import JSON
from model.tasks.formats.json_lines import JSON_LINES
from model.tasks.formats.row_format import Records, RowFormat
from model.tasks.formats.tables import ARROW, PARQUET
from model.tasks.formats.text_lines import TEXT_LINES

FORMATS = (JSON_LINES, CONLL, CONLLU, TEXT_LINES, CSV, TSV, JSON, PARQUET, ARROW)
"""The registry. Of several forms with one ending, the first that recognizes a file reads it, or else the last."""


def read_records(path: Path, needed: Container[str]) -> Records:
    """Return the place of each record of a file and its values by column, in the order of the file.

    needed: columns whose values are read if the file is a table; those of others are None.

    Raises:
        ValueError: now, if there is no such file or its name has no known ending; later, if the file cannot be read.
    """
    return format_of(path, needed).read(path, needed)


def format_of(path: Path, needed: Container[str]) -> RowFormat:
    """Return the form of a file.

    needed: columns that are looked for.

    Raises:
        ValueError: there is no such file, or its name has no known ending.
    """
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give a file of rows")
    found = formats_named(path)
    if not found:
        endings = dict.fromkeys(ending for form in FORMATS for ending in form.endings)
        raise ValueError(f"{path}: unknown format: expected a name that ends in {' '.join(endings)}")
    return next((form for form in found[:-1] if form.recognizes(path, needed)), found[-1])


def formats_named(path: Path) -> list[RowFormat]:
    """Return the forms whose files have such a name."""
    name = path.name.lower()
    ending = Path(name.removesuffix(".gz")).suffix
    return [form for form in FORMATS if ending in form.endings and (form.is_compressible or not name.endswith(".gz"))]


def names_columns(path: Path) -> bool:
    """Return whether the first line of a file names its columns."""
    return any(form.has_header for form in formats_named(path))
