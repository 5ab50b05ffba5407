"""`bertloom preview`: what a job would read, as text and as a page; and the same advice from `preprocess`."""

import json
import re
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import cli
from jobs.support.preview import rounded, shown, size
from tests.jobs.corpus import run_job

SENTENCES = [f"This is sentence number {i} of a text about the river and the town." for i in range(12)]


@pytest.fixture
def corpus(tmp_path):
    """A folder with documents, a file of another kind, and a file whose rows are sentences."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.txt").write_text("\n\n".join("\n".join(SENTENCES) for _ in range(30)))
    rows = "".join(json.dumps({"text": sentence}) + "\n" for sentence in SENTENCES * 5)
    (folder / "b.jsonl").write_text(rows)
    (folder / "c.png").write_bytes(b"\x89PNG")
    return tmp_path


def test_the_preview_shows_files_documents_sentences_and_what_looks_wrong(corpus, capsys):
    assert cli.main(["preview", str(corpus / "in"), "--num-documents", "1"]) == 0
    out = capsys.readouterr().out
    assert "1 file, plain text, 23.8 KB: 30 documents" in out
    assert "sentences   12 in the median document, 12 to 12 in the middle half" in out
    assert f"  a.txt, the record at byte 0: 12 sentences\n    | {SENTENCES[0]}\n    | {SENTENCES[1]}\n" in out
    assert "    … 4 more\n" in out
    assert re.search(r"note: .*1 of 3 files skipped \(1 \.png\)", out)
    assert "  - JSON Lines: 100% of the records are one sentence" in out


def test_the_options_are_shown_as_flags_and_positions_with_their_unit(tmp_path, capsys):
    rows = [f" = Title {i} = " if i % 13 == 0 else SENTENCES[i % 12] for i in range(130)]
    pq.write_table(pa.table({"text": rows}), tmp_path / "a.parquet")
    page = tmp_path / "preview.html"
    assert cli.main(["preview", str(tmp_path / "a.parquet"), "--like", "wikitext", "--html", str(page)]) == 0
    out, html = capsys.readouterr().out, page.read_text("utf-8")
    assert "  read with   --records lines --document-start '^ = [^=].* = $' --skip-lines '^ =.*= $'\n" in out
    assert "a.parquet, the record at row 13: 12 sentences\n" in out
    assert "<code>--records lines --document-start " in html and "the record at row 13: 12 sentences" in html


def test_positions_in_an_archive_are_those_of_its_files(tmp_path, capsys):
    pq.write_table(pa.table({"text": [" ".join(SENTENCES)] * 3}), tmp_path / "a.parquet")
    (tmp_path / "b.txt").write_text("\n\n".join(SENTENCES * 2))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as file:
        for name in ("a.parquet", "b.txt"):
            file.write(tmp_path / name, name)
    assert cli.main(["preview", str(tmp_path / "all.zip"), "--num-documents", "4"]) == 0
    out = capsys.readouterr().out
    assert "all.zip!a.parquet, the record at row 2: 12 sentences\n" in out
    assert "all.zip!b.txt, the record at byte 0: 1 sentence\n" in out


def test_the_page_holds_the_same_and_escapes_the_texts(corpus, capsys):
    (corpus / "in/a.txt").write_text("A text with <b>tags</b> & more.\n" * 30)
    page = corpus / "preview.html"
    words = ["preview", str(corpus / "in"), "--html", str(page)]
    assert cli.main(words) == 0
    html = page.read_text("utf-8")
    assert "A text with &lt;b&gt;tags&lt;/b&gt; &amp; more." in html
    assert "100% of the records are one sentence" in html
    assert cli.main(words) == 2
    assert f"--html {page} exists: give another file, or --overwrite to replace it" in capsys.readouterr().err
    assert cli.main([*words, "--overwrite"]) == 0


def test_preprocess_says_the_same_in_one_line_and_goes_on(corpus, vocab, capsys):
    (corpus / "in/a.txt").unlink()
    (corpus / "in/a.txt").write_text("\n\n".join("\n".join(SENTENCES[:8] + [f"End {i}."]) for i in range(30)))
    run_job(corpus / "in", corpus / "out", vocab, max_seq_length=(32,), dupe_factor=1)
    said = [line for line in capsys.readouterr().err.splitlines() if "one sentence" in line]
    assert len(said) == 1 and said[0].startswith("bertloom preprocess: JSON Lines: 100% of the records")


def test_single_sentences_are_right_for_a_job_without_pairs(corpus, vocab, capsys):
    sentences = str(corpus / "in/b.jsonl")
    assert cli.main(["preview", sentences, "--pairs", "none"]) == 0
    assert "Nothing looks wrong" in capsys.readouterr().out
    run_job(corpus / "in/b.jsonl", corpus / "out", vocab, max_seq_length=(32,), dupe_factor=1, pairs="none")
    assert "one sentence" not in capsys.readouterr().err


def test_a_wrong_vocabulary_is_advice_and_not_an_error(corpus, capsys):
    cased = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "This", "River", "Town", "is", "a", "the"]
    (corpus / "v.txt").write_text("\n".join(cased))
    assert cli.main(["preview", str(corpus / "in"), "--vocab", str(corpus / "v.txt")]) == 0
    assert "--no-do-lower-case" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no input: expected --input with files, folders or globs, or --inputs"),
        (["nothing-here"], "nothing-here: there is no such file or folder"),
        (["a.txt", "--num-documents", "0"], "--num-documents 0: expected 1 to 100"),
        (["a.txt", "--like", "c44"], "--like c44: no corpus has this name; did you mean c4?"),
    ],
)
def test_a_wrong_use_is_one_clear_line(words, message, capsys):
    assert cli.main(["preview", *words]) == 2
    assert message in capsys.readouterr().err


def test_sizes_estimates_and_sentences_are_short():
    assert [size(n) for n in (5, 1_500_000, 2_000_000_000, 3_000_000_000_000)] == [
        "0.0 KB",
        "1.5 MB",
        "2.0 GB",
        "3.0 TB",
    ]
    assert [rounded(n) for n in (0, 7, 99, 123, 123_456)] == ["0", "7", "99", "120", "120,000"]
    assert (
        shown("a\x1b[31mb\x00") == "a\ufffd[31mb\ufffd"
        and shown("1\tA\u3000text\n") == "1 A text"
        and shown("x" * 500) == "x" * 55 + " … " + "x" * 55
    )
    assert shown("中" * 500) == "中" * 27 + " … " + "中" * 28 and shown("中" * 55) == "中" * 55


def test_documents_in_test_sets_are_counted(corpus, capsys):
    (corpus / "test.jsonl").write_text(json.dumps({"q": SENTENCES[4].upper()}) + "\n")
    page = corpus / "preview.html"
    argv = ["preview", str(corpus / "in/b.jsonl"), "--exclude", str(corpus / "test.jsonl"), "--html", str(page)]
    assert cli.main(argv) == 0
    assert "  in test set 5 documents that share a run of 13 words with test.jsonl\n" in capsys.readouterr().out
    assert "5 documents that share a run of 13 words with test.jsonl" in page.read_text("utf-8")
