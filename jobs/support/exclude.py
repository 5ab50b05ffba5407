"""The flags --exclude and --exclude-columns, which name the test sets that must not be trained on."""

from dataclasses import dataclass

FLAG, COLUMNS_FLAG = "--exclude", "--exclude-columns"


@dataclass(frozen=True, kw_only=True)
class ExcludeConfig:
    """Which test sets must not be trained on."""

    exclude: tuple[str, ...] = ()
    """Files, folders or globs of test sets. Documents that share a run of 13 words with one of them are left out and counted
    for each test set. A Chinese character is a word; capital letters, punctuation and line breaks do not matter."""
    exclude_columns: tuple[str, ...] = ()
    """Names of the columns or fields of --exclude that are compared. By default all texts of a record are."""

    def __post_init__(self) -> None:
        if self.exclude_columns and not self.exclude:
            raise ValueError(
                f"{COLUMNS_FLAG} {' '.join(self.exclude_columns)}: is for the files of {FLAG}: give {FLAG}, or leave it out"
            )
