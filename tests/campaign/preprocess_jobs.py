"""Jobs of `bertloom preprocess` that are killed: together they have every option that writes files of its own."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import cli
from jobs.verify import verify
from tests.campaign.corpora import almost, chinese, english, write_file, write_jsonl

SHORT = ["--max-seq-length", "32", "--dupe-factor", "1", "--validation-fraction", "0"]
SPLITS = ["--gates.no-fail", "--split-mb", "0.05"]
SOURCES = """
[[input]]
path = "DIR/en/"
sample = 25

[[input]]
path = "DIR/zh/"
tokens = 20000
"""


def lengths(folder: Path) -> list[str]:
    """Several lengths and copies, a validation split, and a number of shards."""
    write_jsonl(folder / "in/a.jsonl.gz", english()[:25])
    write_file(folder / "in/b.txt", "\n\n".join(chinese()[:15]).encode())
    flags = ["--max-seq-length", "32", "64", "128", "--dupe-factor", "3", "--validation-fraction", "0.1"]
    return ["--input", f"{folder}/in", *flags, "--min-shards", "2", "--do-whole-word-mask"]


def duplicates(folder: Path) -> list[str]:
    write_jsonl(folder / "in/a.jsonl", [*english()[:25], *almost(english()[:10]), *chinese()[:10]])
    write_jsonl(folder / "tests.jsonl", [english()[3][500:1500], chinese()[4][100:400], english()[100]])
    return ["--input", f"{folder}/in", "--near-duplicates", "0.5", "--exclude", f"{folder}/tests.jsonl", *SHORT]


def sources(folder: Path) -> list[str]:
    write_jsonl(folder / "en/one.jsonl", [*english()[:30], *chinese()[:5]])
    write_file(folder / "zh/two.txt", "\n\n".join(chinese()[:25]).encode())
    (folder / "corpus.toml").write_text(SOURCES.replace("DIR", str(folder)))
    return [
        "--inputs",
        f"{folder}/corpus.toml",
        "--per-source",
        "--detect-languages",
        "--near-duplicates",
        "0.5",
        *SHORT,
    ]


def validation(folder: Path) -> list[str]:
    """A validation split of other files; lines that repeat, and a sample of a number, which read the input twice."""
    menus = [f"Home | News | About\n\n{text}" for text in english()[:40]]
    write_jsonl(folder / "in/a.jsonl", menus)
    write_jsonl(folder / "held/v.jsonl", english()[35:45])
    flags = ["--validation-input", f"{folder}/held", "--max-line-repeats", "9", "--sample", "30"]
    return ["--input", f"{folder}/in", *flags, "--max-seq-length", "64", "--dupe-factor", "2", "--pairs", "sop"]


def small_files(folder: Path) -> list[str]:
    """Many files in one piece of work: text, a table, an archive, and a file to leave out."""
    for i, text in enumerate([*english()[:15], *chinese()[:10]]):
        write_file(folder / f"in/{i:02d}.txt", text.encode())
    table = io.BytesIO()
    pq.write_table(pa.table({"text": english()[15:25]}), table, row_group_size=3)
    write_file(folder / "in/table.parquet", table.getvalue())
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as file:
        for i, text in enumerate(english()[25:35]):
            member = tarfile.TarInfo(f"{i}.txt")
            member.size = len(text.encode())
            file.addfile(member, io.BytesIO(text.encode()))
    write_file(folder / "in/archive.tar.gz", archive.getvalue())
    flags = ["--leave-out", "03.txt", "--text-layout", "file", "--pairs", "none", "--mask-spans"]
    return ["--input", f"{folder}/in", *flags, *SHORT]


def extension(folder: Path) -> list[str]:
    """A data set that extends two others, with their sketches; this makes the two."""
    flags = ["--vocab", f"{folder.parent}/vocab.txt", "--near-duplicates", "0.5", *SHORT, *SPLITS]
    for name, texts in (("en", english()[:20]), ("zh", chinese()[:10])):
        write_jsonl(folder / f"{name}/{name}.jsonl", texts)
        assert cli.main(["preprocess", "--input", f"{folder}/{name}", "--out", f"{folder}/old-{name}", *flags]) == 0
    write_jsonl(folder / "new/c.jsonl", [*english()[15:40], *almost(english()[:5]), *chinese()[8:14]])
    return ["--extend", f"{folder}/old-en", f"{folder}/old-zh", "--input", f"{folder}/en", f"{folder}/new"]


def work_folder(folder: Path) -> list[str]:
    """Tokenized text in a folder of its own, with other places than --out for the words of Chinese."""
    write_jsonl(folder / "in/a.jsonl", [*english()[:20], *chinese()[:15]])
    flags = ["--work-dir", "OUT-work", "--chinese-words", "--do-whole-word-mask", "--fix-text"]
    return ["--input", f"{folder}/in", *flags, "--max-seq-length", "32", "64", "--dupe-factor", "2"]


KINDS: dict[str, Callable[[Path], list[str]]] = {
    "--max-seq-length 32 64 128 --dupe-factor 3 --min-shards": lengths,
    "--near-duplicates --exclude": duplicates,
    "--inputs --per-source --detect-languages": sources,
    "--validation-input --max-line-repeats --sample": validation,
    "--leave-out, of small files, tables and archives": small_files,
    "--extend --near-duplicates": extension,
    "--work-dir --chinese-words": work_folder,
}
"""Options -> function that writes their corpus into a folder and returns the options."""


def words(options: list[str], folder: Path, num_workers: int) -> list[str]:
    """Return the command line whose output is in `folder`."""
    given = [word.replace("OUT", f"{folder}/out") for word in options]
    return ["preprocess", *given, *SPLITS, "--out", f"{folder}/out", "--num-workers", str(num_workers)]


def faults(folder: Path) -> list[str]:
    """Return what `bertloom verify` finds in the data sets."""
    data_sets = sorted(path.parent for path in (folder / "out").rglob("manifest.json"))
    return [fault for data_set in data_sets for fault in verify(str(data_set))[0]] if data_sets else ["no data set"]
