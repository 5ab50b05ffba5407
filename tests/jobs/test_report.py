"""`preprocess` ends with a report, and with status 1 where a gate is not passed; `report` makes it again."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bertloom.members import read_shard
from jobs import cli
from jobs.support.figures import draw_length
from jobs.verify import verify
from pipeline.examples.decoding import decode
from pipeline.vocabulary_files import read_vocabulary
from tests.jobs.corpus import WORDS, digests, documents, run_job, write, write_vocabulary


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus of two files and its vocabulary."""
    folder = tmp_path_factory.mktemp("report")
    texts = documents(150)
    write(folder / "in/a.txt", texts[:80])
    with write(folder / "in/b<i>.jsonl", texts[80:]).open("ab") as file:
        file.write(b"{broken <b>line\n")
    write_vocabulary(folder / "vocab.txt")
    return folder


def argv(folder, out, *flags):
    places = ["--input", f"{folder}/in", "--vocab", f"{folder}/vocab.txt", "--out", str(out)]
    return ["preprocess", *places, "--max-seq-length", "32", "64", "--dupe-factor", "2", *flags]


@pytest.fixture(scope="module")
def dataset(folder):
    assert cli.main(argv(folder, folder / "out")) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def report(dataset):
    return json.loads((dataset / "report.json").read_text())


class _Page(HTMLParser):
    """Checks that every tag is closed, and keeps what could be fetched from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elsewhere, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "br", "input"):
            self.open.append(tag)
        self.elsewhere += [value for name, value in attributes if name in ("src", "href") and not value.startswith("#")]
        self.elsewhere += [value for name, value in attributes if name == "xlink:href" and not value.startswith("#")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_one_well_formed_file_that_fetches_nothing(dataset):
    page = _Page((dataset / "report.html").read_text(encoding="utf-8"))
    assert page.open == [] and page.elsewhere == []
    assert "b<i>.jsonl" in page.text and "{broken <b>line" in page.text


def test_the_numbers_are_those_of_the_manifest_and_the_shards(dataset, report):
    manifest = json.loads((dataset / "manifest.json").read_text())
    assert report["counters"] == manifest["counters"] and report["manifest_sha256"] == manifest["sha256"]
    for length in (32, 64):
        tables = [read_shard(str(path)) for path in sorted(dataset.glob(f"*/seq{length}/copy*/*.tar"))]
        examples = [row for table in tables for row in table.to_pylist()]
        found = report["lengths"][str(length)]
        tokens = sum(len(row["input_ids"]) for row in examples)
        assert (found["examples"], found["tokens"]) == (len(examples), tokens)
        assert found["padding_avoided"] == 1 - tokens / (len(examples) * length)
        assert found["random_share"] == sum(row["next_sentence_label"] for row in examples) / len(examples)
    files = {row["name"]: row for row in report["inputs"]["largest"]}
    assert (files["a.txt"]["documents"], files["b<i>.jsonl"]["documents"]) == (80, 70)
    assert sum(row["tokens"] for row in files.values()) == manifest["counters"]["tokens"]
    assert files["b<i>.jsonl"]["rejected"] == 1
    assert report["rejects"]["not-json"][0]["source"] == "b<i>.jsonl"


NEAR = "of these are near duplicates, listed in near-duplicates.parquet"
REPLACED = "characters replaced by U+FFFD"


def test_near_duplicates_and_replaced_characters_are_shown_when_there_are_any(folder, dataset, tmp_path):
    texts = documents(40)
    alike = [[*text, "More."] for text in documents(40)[:5]]
    with write(tmp_path / "in.txt", [*texts, *alike]).open("ab") as file:
        file.write(b"\n\nA word and \xff\xff another.\n")
    flags = argv(folder, tmp_path / "out", "--near-duplicates", "0.6")
    flags[2] = str(tmp_path / "in.txt")
    assert cli.main(flags) == 0
    page = _Page((tmp_path / "out/report.html").read_text(encoding="utf-8")).text
    counters = json.loads((tmp_path / "out/report.json").read_text())["counters"]
    assert counters["documents_near_duplicate"] > 0
    assert f"{counters['documents_near_duplicate']}{NEAR}" in page and f"2{REPLACED}" in page
    plain = (dataset / "report.html").read_text(encoding="utf-8")
    assert NEAR not in plain and REPLACED not in plain


def test_nearly_all_of_a_small_corpus_is_covered_by_its_copies(report):
    assert report["coverage"]["one_copy"] < report["coverage"]["all"] > 0.95


def test_the_examples_to_read_have_the_number_that_explain_takes(dataset, report):
    shards = [f"train/seq32/copy{copy}/00000.tar" for copy in (0, 1)]
    rows = [row for name in shards for row in read_shard(str(dataset / name)).to_pylist()]
    vocabulary = read_vocabulary(str(dataset / "vocab.txt"))
    assert len(report["examples"]) == 20
    for example in report["examples"]:
        assert (
            decode(rows[example["number"]], vocabulary, {0: "next", 1: "random"}) | {"number": example["number"]}
            == example
        )


def test_a_report_made_again_has_the_same_bytes(dataset, folder, capsys):
    before = digests(dataset)
    assert cli.main(["report", str(dataset)]) == 0
    assert capsys.readouterr().out == f"{dataset}/report.html: 10 of 10 gates passed\n"
    assert digests(dataset) == before
    assert cli.main(argv(folder, dataset)) == 0
    assert "already complete" in capsys.readouterr().err
    assert digests(dataset) == before


def test_a_failed_gate_ends_with_status_1_until_its_threshold_is_raised(folder, tmp_path, capsys):
    vocab = tmp_path / "vocab.txt"
    words = (folder / "vocab.txt").read_text().splitlines()
    vocab.write_text("".join(f"{word}\n" for word in words if not re.fullmatch("[一-龥]", word)))  # no Chinese
    flags = argv(folder, tmp_path / "out", "--vocab", str(vocab))
    printed = []
    for _ in range(2):
        assert cli.main(flags) == 1
        err = capsys.readouterr().err
        assert re.search(r": gate: \d\d.* % of the words are \[UNK\], at most 2 % .*--gates.max-unknown 0.02\): ", err)
        printed.append([line for line in err.splitlines() if ": gate: " in line])
    assert printed[0] == printed[1]
    shards = digests(tmp_path / "out", "train/", "manifest.json")
    assert shards and "not passed" in (tmp_path / "out/report.html").read_text()
    assert cli.main(["report", str(tmp_path / "out")]) == 1
    assert cli.main(["report", str(tmp_path / "out"), "--gates.max-unknown", "0.5"]) == 0
    assert cli.main([*flags, "--gates.no-fail"]) == 0
    assert ": gate: 32.9 %" in capsys.readouterr().err
    assert digests(tmp_path / "out", "train/", "manifest.json") == shards


def test_an_empty_input_among_a_few_is_reported(folder, tmp_path, capsys):
    (tmp_path / "empty.txt").write_text("\n\n")
    flags = argv(folder, tmp_path / "out")
    flags[3:3] = [str(tmp_path / "empty.txt")]
    assert cli.main(flags) == 1
    assert (
        "33.3 % of the input files have no document" in (err := capsys.readouterr().err) and "check empty.txt: " in err
    )


@pytest.mark.parametrize("pairs", ["sop", "none"])
def test_every_pair_objective_has_a_report(folder, tmp_path, pairs):
    out = tmp_path / "out"
    assert cli.main(argv(folder, out, "--pairs", pairs)) == 0
    text, report = (out / "report.html").read_text(), json.loads((out / "report.json").read_text())
    assert ("swapped" in text) == (pairs == "sop") and ("no pairs" in text) == (pairs == "none")
    assert (report["lengths"]["32"]["label_guess"] is None) == (pairs == "none")
    assert (report["lengths"]["32"]["border_guess"] is None) == (pairs == "none")


def test_figures_are_svg_with_titles_and_labels_in_ascii(report):
    figure = draw_length(32, report["lengths"]["32"])
    assert figure.count("<svg") == figure.count("</svg>") == 4 and figure.isascii()
    assert "tokens of B, by label" in figure and ">random<" in figure


def test_a_report_of_a_folder_that_is_not_a_data_set_is_a_usage_error(tmp_path, capsys):
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "is not a data set, or not a finished one" in capsys.readouterr().err


def test_the_preprocess_function_writes_no_report(folder, tmp_path):
    run_job(folder / "in", tmp_path / "out", folder / "vocab.txt")
    assert not any(name.startswith("report") for name in digests(tmp_path / "out"))


def faults(dataset):
    return verify(str(dataset))[0]


@pytest.fixture
def copy(dataset, tmp_path):
    return Path(shutil.copytree(dataset, tmp_path / "copy"))


def test_a_page_of_examples_is_one_file_of_those_that_the_report_draws(copy, report, capsys):
    assert cli.main(["report", str(copy), "--html-examples", "50"]) == 0
    assert f"{copy}/examples.html: 50 examples\n" in capsys.readouterr().out
    text = (copy / "examples.html").read_text(encoding="utf-8")
    page = _Page(text)
    assert page.open == [] and page.elsewhere == []
    assert not re.search(r"<script|<link|<img|\bon\w+=|url\(|@import", text)
    numbers = [int(number) for number in re.findall('id="e([0-9]+)"', text)]
    assert len(numbers) == 50 and numbers[:20] == [example["number"] for example in report["examples"]]
    assert text.count('<mark class="mask" tabindex') > 50
    assert _Page((copy / "report.html").read_text(encoding="utf-8")).elsewhere == ["examples.html"]
    assert faults(copy) == []


def test_a_page_of_examples_stays_until_another_number_is_given(copy):
    before = digests(copy)
    assert cli.main(["report", str(copy), "--html-examples", "3"]) == 0
    three = digests(copy)
    assert cli.main(["report", str(copy)]) == 0
    assert digests(copy) == three != before
    assert cli.main(["report", str(copy), "--html-examples", "0"]) == 0
    assert digests(copy) == before


def test_a_page_of_examples_is_verified(copy):
    assert cli.main(["report", str(copy), "--html-examples", "3"]) == 0
    page = (copy / "examples.html").read_bytes()
    (copy / "examples.html").write_bytes(page + b" ")
    assert faults(copy) == ["examples.html: its sha256 differs from the one in report.json"]
    (copy / "examples.html").unlink()
    assert faults(copy) == ["examples.html: is missing"]
    assert cli.main(["report", str(copy), "--html-examples", "0"]) == 0
    assert faults(copy) == []
    (copy / "examples.html").write_bytes(page)
    assert (
        [fault for fault in faults(copy) if "examples.html: is not listed in report.json" in fault]
        == faults(copy)
        != []
    )


@pytest.mark.parametrize("number", ["-1", "1001"])
def test_the_number_of_examples_on_a_page_has_a_bound(dataset, capsys, number):
    assert cli.main(["report", str(dataset), "--html-examples", number]) == 2
    assert f"--html-examples {number}: expected 0 to 1,000" in capsys.readouterr().err
    assert not (dataset / "examples.html").exists()


def test_a_page_of_examples_shows_html_and_other_scripts_as_text(folder, tmp_path):
    vocab = tmp_path / "vocab.txt"
    vocab.write_text((folder / "vocab.txt").read_text() + "<\n>\n/\nscript\nשלום\nעולם\n")
    strange = [["<script>script</script> שלום עולם. " * 6]] * 4
    text = write(tmp_path / "in.txt", [[f"{one[0]} {word}."] for one, word in zip(strange * 5, WORDS)])
    assert cli.main(["preprocess", "--input", str(text), "--vocab", str(vocab), "--out", str(tmp_path / "out")]) in (
        0,
        1,
    )
    assert cli.main(["report", str(tmp_path / "out"), "--html-examples", "20", "--gates.no-fail"]) == 0
    page = _Page(html := (tmp_path / "out/examples.html").read_text(encoding="utf-8"))
    assert "<script" not in html and "< script >" in page.text and "שלום עולם" in page.text
    assert html.count('<p dir="auto" lang="">') >= 20
