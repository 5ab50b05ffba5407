"""Small files and models in the place of the files that the documentation names, such as `corpus/` or `bert-base-uncased`.

Each kind is made once, in a folder of masters, with bertloom's own commands where the kind is the result of one.
"""

import bz2
import csv
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import BertConfig, BertModel

from jobs.cli import main
from tests import doc_pages
from tests.doc_pages import ROOT
from tests.model.small_task import ROWS, VOCABULARY, write_model

SHAPE = {"num-hidden-layers": 1, "hidden-size": 16, "num-attention-heads": 2, "intermediate-size": 32}
"""Of the models that are trained here."""
SHAPE_FLAGS = [word for name, value in SHAPE.items() for word in (f"--model.{name}", str(value))]
NUM_ROWS = 40
FILE_NAMES = {"english": "part.jsonl", "chinese": "part.txt", "dump": "pages.xml.bz2", "chinese dump": "pages.xml.bz2"}
"""In a folder."""
TASKS = """
num_epochs = 1
[banking]
task = "classify"
train = "banking/train.jsonl"
dev = "banking/dev.jsonl"
"""
BAD_ROWS = "text\tlabel\nfilm\tgood\nalone\n\tgood\na\tb\tc\td\n" + "film\tbad\n" * 5


class StandIns:
    """The masters, and their copies in the folder of a page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.english = (ROOT / "jobs/sample/en.jsonl").read_text("utf-8").splitlines()[::5]
        self.chinese = (ROOT / "jobs/sample/zh.txt").read_text("utf-8").split("\n\n")[:30]

    def texts(self) -> list[str]:
        """The English texts without the objects in which they come."""
        return [json.loads(line)["text"] for line in self.english]

    def put(self, kind: str, path: Path) -> None:
        """Write a stand-in of a kind under a name; a name without an ending is a folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind.split()[0] in ROWS:
            _write_rows(path, kind)
        elif kind in FILE_NAMES and not path.suffix:
            self.put(kind, path / FILE_NAMES[kind])
        elif kind == "english":
            _write(path, "\n".join(self.english) + "\n")
        elif kind == "one document":
            _write(path, self.english[0] + "\n")
        elif kind == "parquet":
            pq.write_table(pa.table({"text": self.texts()}), path)
        elif kind == "tasks":
            _write(path, TASKS)
        elif kind == "bad rows":
            _write(path, BAD_ROWS)
        elif kind in ("english files", "chinese files"):  # a file for each document
            for number, text in enumerate(self.texts()[1::4] if kind == "english files" else self.chinese):
                _write(path / f"{number}.txt", text + "\n")
        elif kind == "english half":
            _write(path, "\n".join(self.english[::2]) + "\n")
        elif kind == "lines of the model":  # words that the stand-in for a published BERT has
            _write(path, "\n\n".join("Where is Paris? Anna lives in London.\n" * 9 + f"{n}." for n in range(40)) + "\n")
        elif kind == "chinese":
            _write(path, "\n\n".join(self.chinese) + "\n")
        elif kind == "lines":
            _write(path, "The film is good.\nParis is the capital of France.\n")
        elif kind == "texts":
            _write(path, "".join(json.dumps({"id": n, "text": f"Anna lives in Paris {n}."}) + "\n" for n in range(9)))
        elif kind == "dump":
            _write(path, _dump(self.texts()))
        elif kind == "chinese dump":
            _write(path, _dump(self.chinese))
        elif kind == "oscar":
            _write(path, "".join(json.dumps({"content": text}) + "\n" for text in self.texts()))
        else:
            master = self.master(kind)
            (shutil.copytree if master.is_dir() else shutil.copyfile)(master, path)

    def master(self, kind: str) -> Path:
        """The file or folder of this kind, made now if it was not made before."""
        path = self.folder / kind.replace(" ", "-")
        if not path.exists():
            _MAKERS[kind.split()[0]](self, kind, path)
        return path

    def _vocabulary(self, kind: str, path: Path) -> None:
        self.put("english", self.folder / "en.jsonl")
        self.put("chinese", self.folder / "zh.txt")
        texts = [str(self.folder / "en.jsonl"), str(self.folder / "zh.txt")]
        _run("build-vocab", "--input", *texts, "--vocab-size", "1500", "--out", str(path))

    def _data(self, kind: str, path: Path) -> None:
        """`data 128 512 of 2`: shards of two lengths, of the second seed."""
        lengths, _, seed = kind.removeprefix("data").partition("of")
        vocab = str(self.master("vocabulary"))
        words = ["--max-seq-length", *(lengths.split() or ["128"]), "--dupe-factor", "2", "--seed", seed.strip() or "1"]
        words += ["--validation-fraction", "0.5", "--num-workers", "1"]
        texts = [str(self.folder / "en.jsonl"), str(self.folder / "zh.txt")]
        _run("preprocess", "--input", *texts, "--vocab", vocab, "--out", str(path), *words)

    def _run_of_training(self, kind: str, path: Path) -> None:
        words = ["--num-steps", "4", "--batch-size", "8", *SHAPE_FLAGS]
        _run("pretrain", "tiny", "--data", str(self.master("data")), "--out", str(path), *words)

    def _bert(self, kind: str, path: Path) -> None:
        write_model(path, max_position_embeddings=512, type_vocab_size=2)

    def _encoder(self, kind: str, path: Path) -> None:
        """A model without the head for masked words, as embedding models are published."""
        self.put("bert", path)
        shape = {name.replace("-", "_"): value for name, value in SHAPE.items()}
        BertModel(BertConfig(vocab_size=len(VOCABULARY), **shape)).save_pretrained(path)

    def _tuned(self, kind: str, path: Path) -> None:
        """`tuned TASK`: a model that was fine-tuned for a task."""
        task = kind.split()[1]
        rows = self.folder / f"{task}.jsonl"
        self.put(task, rows)
        files = ["--train", str(rows), "--dev", str(rows)]
        _run(
            "finetune",
            "--task",
            task,
            "--model",
            str(self.master("bert")),
            *files,
            "--out",
            str(path),
            "--num-epochs",
            "1",
        )


_MAKERS: dict[str, Callable[[StandIns, str, Path], None]] = {
    "vocabulary": StandIns._vocabulary,
    "data": StandIns._data,
    "run": StandIns._run_of_training,
    "bert": StandIns._bert,
    "encoder": StandIns._encoder,
    "tuned": StandIns._tuned,
}


def _run(*words: str) -> None:
    assert main(words) == 0, words


def _write(path: Path, text: str) -> None:
    data = text.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes({".gz": gzip.compress, ".bz2": bz2.compress}.get(path.suffix, bytes)(data))


def _dump(texts: list[str]) -> str:
    pages = "".join(
        f"<page><title>Page {number}</title><ns>0</ns><id>{number}</id><revision><id>{number}</id>"
        f"<model>wikitext</model><text>{escape(text)}</text></revision></page>\n"
        for number, text in enumerate(texts, 1)
    )
    return f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11">\n{pages}</mediawiki>\n'


def _write_rows(path: Path, kind: str) -> None:
    """Rows of a task, in the form of the file's name. `classify COLUMN`: the text is in this column."""
    task, *column = kind.split()
    rows = ROWS[task](NUM_ROWS)
    if column:
        rows = [{column[0] if name == "text" else name: value for name, value in row.items()} for row in rows]
    if path.suffix in (".conll", ".iob2"):
        _write(path, "".join(_sentence(row, numbered=path.suffix == ".iob2") for row in rows))
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":  # as SQuAD's
        paragraphs = [{"context": row["context"], "qas": [row]} for row in rows]
        _write(path, json.dumps({"data": [{"paragraphs": paragraphs}]}))
    else:
        _write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _sentence(row: dict, numbered: bool) -> str:
    words = enumerate(zip(row["tokens"], row["tags"]), 1)
    return "".join(f"{n}\t{word}\t{tag}\t-\t-\n" if numbered else f"{word}\t{tag}\n" for n, (word, tag) in words) + "\n"


def shown_file(page: str, kind: str) -> str:
    """A file that the page shows: `shown 0` is its first block of TOML, `shown rows 0` its first block of CSV."""
    blocks = doc_pages.rows(page) if "rows" in kind else doc_pages.toml(page)
    return blocks[int(kind.split()[-1])]
