"""Reads the records of a task's files as a stream, each with its place in the file.

| name ends in | a record is                                                                                       |
|--------------|---------------------------------------------------------------------------------------------------|
| .jsonl       | a line with a JSON object                                                                         |
| .txt         | a line, as the column `text`; or as for .conll if the file has no texts (`formats/conll.py`)      |
| .conll       | a sentence: a line for each word, a blank line after it; also .bio, .bmes, .bioes, .iob, .iob2    |
| .conllu      | a sentence of CoNLL-U                                                                             |
| .csv         | a record below a header, quoted as in RFC 4180; semicolons or tabs may be in place of commas      |
| .tsv         | a line below a header; quotes have no meaning, as in GLUE's files                                 |
| .parquet     | a row                                                                                             |
| .arrow       | a row of an Arrow file or stream, as `datasets` saves it                                          |
| .json        | an object of a list, or a question of SQuAD 1.1 or 2.0 (CMRC 2018 and DRCD have the same format)  |

The case of the ending does not matter. Text may be compressed as .gz. It is UTF-8, or UTF-16 with a byte order mark. Lines
end with \\n, \\r\\n, or \\r; other blank lines are ignored. An unusable record is returned as a BadRow in its place, so that
the caller can stop, or count it and continue. No file makes a reader crash, or hold more than a record, batch or MAX_BYTES.
"""

from collections.abc import Container
from pathlib import Path

from model.tasks.formats.registry import format_of, formats_named
from model.tasks.formats.row_format import Records


def read_records(path: Path, needed: Container[str]) -> Records:
    """Return the place of each record and its values by column, in the order of the file; see the top of this module.

    needed: columns whose values are read if the file is a table; those of others are None.

    Raises:
        ValueError: now, if there is no such file or its name has no known ending; later, if the file cannot be read.
    """
    return format_of(path, needed).read(path, needed)


def names_columns(path: Path) -> bool:
    """Return whether the first line of a file names its columns."""
    return any(form.has_header for form in formats_named(path))
