"""The forms of files of rows, and the form of a file by its name."""

from collections.abc import Container
from pathlib import Path

from model.tasks.formats.conll import CONLL
from model.tasks.formats.conllu import CONLLU
from model.tasks.formats.delimited import CSV, TSV
from model.tasks.formats.json_documents import JSON
from model.tasks.formats.json_lines import JSON_LINES
from model.tasks.formats.row_format import RowFormat
from model.tasks.formats.tables import ARROW, PARQUET
from model.tasks.formats.text_lines import TEXT_LINES

FORMATS = (JSON_LINES, CONLL, CONLLU, TEXT_LINES, CSV, TSV, JSON, PARQUET, ARROW)
"""The registry. Of several forms with one ending, the first that recognizes a file reads it, or else the last."""


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
