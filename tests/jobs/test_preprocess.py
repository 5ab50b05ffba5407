"""Whole preprocessing jobs on a tiny corpus: the same bytes however they run, all documents counted, clear errors."""

import gzip
import json
import shutil

import pyarrow.parquet as pq
import pytest

from bertloom.members import read_shard
from jobs import cli
from jobs.verify import verify
from tests.jobs.corpus import as_jsonl, as_txt, digests, documents, run_job, shard_digests, write

TEXTS = documents(150)
SMALL = ["--max-seq-length", "32", "--dupe-factor", "1"]


@pytest.fixture(scope="module")
def one(tmp_path_factory, vocab):
    """(input file, finished data set, its manifest): one file, one worker, one split."""
    folder = tmp_path_factory.mktemp("one")
    source = write(folder / "texts.txt", TEXTS)
    return source, folder / "out", run_job(source, folder / "out", vocab)


# ---- the same texts give the same shards


def test_the_corpus_of_these_tests_holds_both_languages_splits_lengths_and_copies(one):
    _, out, manifest = one
    shards = [name for name in digests(out) if name.endswith(".tar")]
    assert len(shards) == 8 and {name.split("/")[0] for name in shards} == {"train", "validation"}
    assert b"\xe5\xa4\xa9" in as_txt(TEXTS) and manifest["counters"]["examples"]["validation"] > 100
    assert verify(str(out))[0] == []


@pytest.mark.parametrize("options", [{}, {"split_mb": 0.02}, {"num_workers": 2, "split_mb": 0.02}], ids=str)
def test_a_job_over_the_same_files_gives_the_same_bytes_in_every_file(one, vocab, tmp_path, options):
    source, out, _ = one
    run_job(source, tmp_path / "out", vocab, **options)
    assert digests(tmp_path / "out") == digests(out)


def _cut(folder):
    for i in range(0, len(TEXTS), 7):
        write(folder / f"{i:03d}.txt", TEXTS[i : i + 7])


def _renamed_and_reordered(folder):
    for i, name in enumerate(("z", "b/c", "b/a")):
        write(folder / f"{name}.txt", TEXTS[i::3])


def _json_lines(folder):
    write(folder / "all.jsonl", TEXTS)


def _packed_and_mixed(folder):
    write(folder / "a.jsonl.gz", TEXTS[100:])
    write(folder / "b.txt.bz2", TEXTS[:50])
    write(folder / "c.txt.gz", TEXTS[50:70])
    write(folder / "d.jsonl", TEXTS[70:100])


def _from_windows(folder):
    folder.mkdir()
    (folder / "all.txt").write_bytes(b"\xef\xbb\xbf" + as_txt(TEXTS).replace(b"\n", b"\r\n"))


def _with_duplicates(folder):
    _cut(folder)
    write(folder / "again.jsonl", TEXTS[30:60])


@pytest.mark.parametrize(
    "lay", [_cut, _renamed_and_reordered, _json_lines, _packed_and_mixed, _from_windows, _with_duplicates]
)
@pytest.mark.parametrize("split_mb", [None, 0.01])
def test_how_the_texts_lie_in_files_never_shows_in_the_shards(one, vocab, tmp_path, lay, split_mb):
    _, out, manifest = one
    lay(tmp_path / "in")
    mine = run_job(tmp_path / "in", tmp_path / "out", vocab, split_mb=split_mb)
    assert mine["shards_digest"] == manifest["shards_digest"]
    assert shard_digests(tmp_path / "out") == shard_digests(out)


def test_many_buckets_are_the_same_however_the_input_is_cut(vocab, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.stages.plan.BUCKET_TOKENS", 4000)
    _json_lines(tmp_path / "a")
    _renamed_and_reordered(tmp_path / "b")
    first = run_job(tmp_path / "a", tmp_path / "first", vocab)
    second = run_job(tmp_path / "b", tmp_path / "second", vocab, split_mb=0.01)
    assert sum(name.startswith("train/seq32/copy0/") for name in digests(tmp_path / "first")) > 3
    assert shard_digests(tmp_path / "first") == shard_digests(tmp_path / "second")
    assert first["counters"]["examples"] == second["counters"]["examples"]
    assert verify(str(tmp_path / "first"))[0] == verify(str(tmp_path / "second"))[0] == []


@pytest.mark.parametrize(
    "options",
    [{"seed": 2}, {"masked_lm_prob": 0.2}, {"short_seq_prob": 0.5}, {"do_lower_case": False}],
    ids=str,
)
def test_an_option_that_should_show_in_the_shards_does(one, vocab, tmp_path, options):
    source, _, manifest = one
    assert run_job(source, tmp_path / "out", vocab, **options)["shards_digest"] != manifest["shards_digest"]


def test_more_copies_and_lengths_leave_those_that_were_there_as_they_were(one, vocab, tmp_path):
    source, out, _ = one
    run_job(source, tmp_path / "out", vocab, max_seq_length=(16, 64, 32), dupe_factor=3)
    before, after = digests(out, "train/", "validation/"), digests(tmp_path / "out", "train/", "validation/")
    assert before.items() < after.items() and len(after) == 18


def test_more_text_holds_out_the_same_documents_and_more(one, vocab, tmp_path):
    _, out, _ = one
    write(tmp_path / "more.txt", TEXTS + documents(50, seed=2))
    run_job(tmp_path / "more.txt", tmp_path / "out", vocab)
    held_out = [
        set(pq.read_table(f / "documents/validation/00000.parquet")["id"].to_pylist()) for f in (out, tmp_path / "out")
    ]
    assert held_out[0] < held_out[1]


def test_no_document_is_in_both_splits_and_every_random_segment_is_from_its_own_split(one):
    _, out, _ = one
    ids = {
        split: set(pq.read_table(out / f"documents/{split}/00000.parquet")["id"].to_pylist())
        for split in ("train", "validation")
    }
    assert not ids["train"] & ids["validation"]
    for split, known in ids.items():
        for path in (out / split).rglob("*.tar"):
            shard = read_shard(str(path))
            assert {*shard["document_a"].to_pylist(), *shard["document_b"].to_pylist()} <= known


# ---- every document is accounted for


def test_equal_documents_in_several_files_are_used_once_and_the_first_source_is_kept(one, vocab, tmp_path):
    _with_duplicates(tmp_path / "in")
    manifest = run_job(tmp_path / "in", tmp_path / "out", vocab)
    counters = manifest["counters"]
    assert (counters["documents_in"], counters["documents_used"], counters["documents_duplicate"]) == (180, 150, 30)
    rows = pq.read_table(tmp_path / "out/documents/train/00000.parquet").to_pylist()
    rows += pq.read_table(tmp_path / "out/documents/validation/00000.parquet").to_pylist()
    assert len({row["id"] for row in rows}) == len(rows) == 150
    assert {row["source"] for row in rows} == {f"{i:03d}.txt" for i in range(0, 150, 7)}


def test_a_page_of_documents_leads_back_to_the_bytes_of_each_source(one):
    source, out, _ = one
    data = source.read_bytes()
    for split in ("train", "validation"):
        for row in pq.read_table(out / f"documents/{split}/00000.parquet").to_pylist():
            text = data[row["position"] : row["position"] + row["length"]]
            assert text.decode().split("\n") in TEXTS


def rejects_of(out):
    return [json.loads(line) for line in gzip.decompress((out / "rejects/rejects.jsonl.gz").read_bytes()).splitlines()]


BROKEN = [
    (b'{"text": "cut off', "not-json"),
    (b"[1, 2]", "not-an-object"),
    (b'{"txt": "Other name."}', "no-text-field"),
    (b'{"text": 7}', "text-not-a-string"),
    (b'{"text": " \\n "}', "empty-text"),
    (b'{"text": "\\u0001"}', "no-tokens"),
    (b"", "blank-line"),
]


def test_each_broken_line_is_counted_by_reason_printed_and_told_with_its_place(vocab, tmp_path, capsys):
    good = as_jsonl(TEXTS).splitlines()
    lines, expected = [], []
    for i, line in enumerate(good):
        if i % 20 == 3 and i // 20 < len(BROKEN):
            bad, reason = BROKEN[i // 20]
            expected.append((sum(len(one) + 1 for one in lines), reason))
            lines.append(bad)
        lines.append(line)
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    status = cli.main(
        ["preprocess", "--input", f"{tmp_path}/in.jsonl", "--vocab", str(vocab), "--out", f"{tmp_path}/out", *SMALL]
    )
    assert status == 0
    counters = json.loads((tmp_path / "out/manifest.json").read_text())["counters"]
    without = counters["rejected"].pop("no-example", 0)
    assert counters["rejected"] == {reason: 1 for _, reason in BROKEN} and list(counters["rejected"]) == sorted(
        counters["rejected"]
    )
    assert counters["documents_in"] == 150 + len(BROKEN) and counters["documents_used"] == 150 - without
    printed = capsys.readouterr().out
    assert f"157 in = {150 - without} used + {7 + without} rejected + 0 duplicate" in printed
    assert all(f"1 {reason}\n" in printed for _, reason in BROKEN)
    log = rejects_of(tmp_path / "out")
    log = [row for row in log if row["reason"] != "no-example"]
    assert sorted((row["position"], row["reason"]) for row in log) == expected
    assert {row["source"] for row in log} == {"in.jsonl"}
    assert next(row["detail"] for row in log if row["reason"] == "no-text-field") == "fields: txt"


def test_documents_that_reach_no_example_are_rejects_with_their_place(vocab, tmp_path):
    single = [[paragraphs[0].split(". ")[0].split("。")[0] + "."] for paragraphs in documents(330, seed=5)]
    texts = [paragraphs * 2 if i % 3 == 0 else paragraphs for i, paragraphs in enumerate(single)]
    source = write(tmp_path / "in.txt", texts)
    manifest = run_job(source, tmp_path / "out", vocab, max_seq_length=(128,), dupe_factor=1, validation_fraction=0)
    counters = manifest["counters"]
    assert counters["rejected"]["no-example"] > 0
    assert (
        counters["documents_in"]
        == counters["documents_used"] + counters["rejected"]["no-example"] + counters["documents_duplicate"]
    )
    log = rejects_of(tmp_path / "out")
    assert len(log) == counters["rejected"]["no-example"] and all(row["reason"] == "no-example" for row in log)
    shard = read_shard(str(tmp_path / "out/train/seq128/copy0/00000.tar"))
    reached = {*shard["document_a"].to_pylist(), *shard["document_b"].to_pylist()}
    places = {
        row["id"]: row["position"] for row in pq.read_table(tmp_path / "out/documents/train/00000.parquet").to_pylist()
    }
    assert {row["position"] for row in log} == {place for id_, place in places.items() if id_ not in reached}
    assert verify(str(tmp_path / "out"))[0] == []


def test_bytes_that_are_no_utf_8_are_replaced_counted_and_said(vocab, tmp_path, capsys):
    data = bytearray(as_txt([paragraphs for paragraphs in TEXTS if paragraphs[0].isascii()]))
    for at in range(1000, 5000, 1000):
        data[at] = 0xFF
    (tmp_path / "in.txt").write_bytes(data)
    assert (
        cli.main(
            ["preprocess", "--input", f"{tmp_path}/in.txt", "--vocab", str(vocab), "--out", f"{tmp_path}/out", *SMALL]
        )
        == 0
    )
    assert json.loads((tmp_path / "out/manifest.json").read_text())["counters"]["characters_replaced"] == 4
    assert "replaced               4 bytes that are not UTF-8, by U+FFFD" in capsys.readouterr().out


def test_of_a_truncated_archive_the_start_is_kept_and_the_damage_counted(vocab, tmp_path, capsys):
    packed = write(tmp_path / "in.jsonl.gz", TEXTS).read_bytes()
    (tmp_path / "in.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    write(tmp_path / "whole.txt", TEXTS[140:])
    status = cli.main(
        [
            "preprocess",
            "--input",
            f"{tmp_path}/*.gz",
            f"{tmp_path}/*.txt",
            "--vocab",
            str(vocab),
            "--out",
            f"{tmp_path}/out",
            *SMALL,
        ]
    )
    assert status == 0
    counters = json.loads((tmp_path / "out/manifest.json").read_text())["counters"]
    assert counters["rejected"]["damaged-file"] == 1 and 40 < counters["documents_used"] < 120
    assert "1 damaged-file" in capsys.readouterr().out


def test_a_source_that_grew_is_another_source(one, vocab, tmp_path):
    source, _, manifest = one
    copy = tmp_path / "texts.txt"
    shutil.copyfile(source, copy)
    assert (
        run_job(copy, tmp_path / "a", vocab, work_dir=tmp_path / "work")["shards_digest"] == manifest["shards_digest"]
    )
    with copy.open("ab") as file:
        file.write(b"\n" + as_txt(documents(9, seed=9)))
    assert run_job(copy, tmp_path / "b", vocab, work_dir=tmp_path / "work")["counters"]["documents_in"] == 159


# ---- bad input: a clear word and status 2, never a traceback


@pytest.fixture
def refused(tmp_path, vocab, capsys):
    """Runs a job that must fail; gives the one line that it says."""

    def run(*flags, **given):
        source = given.get("source", tmp_path / "in.txt")
        if source == tmp_path / "in.txt" and not source.exists():
            write(source, TEXTS[:60])
        words = [
            "--input",
            str(source),
            "--vocab",
            str(given.get("vocab", vocab)),
            "--out",
            str(given.get("out", tmp_path / "out")),
        ]
        status = cli.main(["preprocess", *words, *flags])
        out, err = capsys.readouterr()
        assert status == 2 and not out and "Traceback" not in err and "[while running" not in err
        assert not list(tmp_path.rglob(".lock"))
        last = err.splitlines()[-1]
        assert last.startswith("bertloom preprocess: error: ")
        return last.removeprefix("bertloom preprocess: error: ")

    return run


def test_an_input_that_matches_nothing_names_the_pattern_and_what_was_expected(refused, tmp_path):
    said = refused(source=tmp_path / "nothing*.txt")
    assert said.startswith(f"--input {tmp_path}/nothing*.txt: no file matches. Expected a name that ends in .txt")
    (tmp_path / "folder").mkdir()
    assert "no file matches" in refused(source=tmp_path / "folder")
    assert not (tmp_path / "out").exists()


def test_a_file_of_an_unknown_kind_is_named(refused, tmp_path):
    (tmp_path / "table.xls").write_text("a,b\n")
    assert "table.xls: its name does not show its format. Expected a name that ends in .txt" in refused(
        source=tmp_path / "table.xls"
    )


@pytest.mark.parametrize("content", [b"", b"\n\n \n\t\n\r\n", b"\xef\xbb\xbf", b"\x00\x01\n\n\x02"], ids=repr)
def test_an_input_without_text_says_so(refused, tmp_path, content):
    (tmp_path / "in.txt").write_bytes(content)
    assert refused().startswith("no documents: the input has no text that can be read (")


def test_an_archive_that_is_none_says_so_with_the_number_of_rejects(refused, tmp_path):
    (tmp_path / "in.txt.gz").write_bytes(b"this is no gzip")
    assert "no documents: the input has no text that can be read (1 record rejected" in refused(
        source=tmp_path / "in.txt.gz"
    )


def test_a_vocabulary_that_cannot_be_used_is_named_with_its_line(refused, tmp_path, vocab):
    words = vocab.read_text().splitlines()
    bad = tmp_path / "bad.txt"
    for lines, says in (
        ([*words[:50], words[10], *words[50:]], f"bad.txt: the word '{words[10]}' is on line 11 and again on line 51"),
        ([word for word in words if word != "[MASK]"], "bad.txt: [MASK] missing"),
        ([*words[:9], "", *words[9:]], "bad.txt: line 10 is empty"),
        (["[PAD]"], "bad.txt: 1 words; expected one word per line"),
    ):
        bad.write_text("\n".join(lines) + "\n")
        assert says in refused(vocab=bad)
    assert "make a vocabulary with `bertloom build-vocab`" in refused(vocab=tmp_path / "none.txt")
    assert "has neither tokenizer.json nor vocab.txt" in refused(vocab=tmp_path)


def test_a_vocabulary_with_crlf_is_taken_and_said(one, vocab, tmp_path, capsys):
    source, _, manifest = one
    crlf = tmp_path / "crlf.txt"
    crlf.write_bytes(vocab.read_bytes().replace(b"\n", b"\r\n"))
    assert run_job(source, tmp_path / "out", crlf)["shards_digest"] == manifest["shards_digest"]
    assert "lines end in CRLF, which was read as LF" in capsys.readouterr().err
    assert (tmp_path / "out/vocab.txt").read_bytes() == vocab.read_bytes()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--max-seq-length 7", "--max-seq-length 7: expected 8 to 65535; BERT used 128 and 512"),
        ("--max-seq-length 70000", "--max-seq-length 70000: expected 8 to 65535"),
        ("--max-seq-length 64 64", "--max-seq-length 64 64: expected one or more different lengths"),
        ("--dupe-factor 0", "--dupe-factor 0: expected 1 or more copies"),
        ("--num-workers 0", "--num-workers 0: expected 1 to 1,024"),
        ("--num-workers 100000", "--num-workers 100000: expected 1 to 1,024, such as the number of processor cores"),
        ("--split-mb 0", "--split-mb 0.0: expected more than 0"),
        ("--seed -1", "--seed -1: expected 0 to 2^63 - 1"),
        ("--validation-fraction 0.9", "--validation-fraction 0.9: expected a share from 0.0 to 0.5"),
        ("--masked-lm-prob 0", "--masked-lm-prob 0.0: expected a share"),
        (
            "--max-predictions-per-seq 20 76",
            "--max-predictions-per-seq 20 76: expected one number above 0 for each of the 1 lengths",
        ),
    ],
)
def test_a_value_out_of_range_names_the_flag_and_the_range(refused, flags, says):
    assert says in refused(*flags.split())


@pytest.mark.parametrize("flags", [["--max-seq-len", "64"], ["--dupe-factor", "many"], []], ids=str)
def test_a_wrong_flag_is_status_2_and_names_it(capsys, flags, tmp_path):
    try:
        assert cli.main(["preprocess", "--vocab=v", "--out=o", *(["--input=i"] if flags else []), *flags]) == 2
    except SystemExit as exit:  # of the library that parses flags
        assert exit.code == 2
    err = capsys.readouterr().err
    assert (flags or ["--input"])[0] in err and "Traceback" not in err


def test_an_output_that_is_a_file_is_named(refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert refused(out=out) == f"--out {out}: a file has this name; expected a folder or an unused name"
    said = refused("--work-dir", str(tmp_path / "file"))
    assert said.startswith(f"--work-dir {tmp_path}/file") and "a file has this name" in said
    assert (tmp_path / "file").read_text() == "mine"


def test_one_document_alone_is_too_few(refused, tmp_path):
    write(tmp_path / "in.txt", TEXTS[:1])
    assert "give at least two documents" in refused(*SMALL)


def test_documents_of_one_sentence_each_are_refused_with_the_reason(refused, tmp_path):
    write(tmp_path / "in.txt", [[f"word{i} and nothing else."] for i in range(300)])
    said = refused(*SMALL)
    assert "--max-seq-length 32: " in said and "too many documents have a single sentence" in said
    assert "A blank line ends a document" in said


def test_pieces_of_one_long_text_are_not_two_documents(refused, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.text.records.MAX_DOCUMENT_BYTES", 3000)
    write(tmp_path / "in.txt", [[paragraph for paragraphs in TEXTS for paragraph in paragraphs]])
    assert "are all pieces of one text" in refused(*SMALL)


def test_an_error_in_a_worker_process_reaches_the_user_as_one_line(refused, tmp_path):
    write(tmp_path / "in.txt", [[f"word{i} and nothing else."] for i in range(300)])
    assert "too many documents have a single sentence" in refused(*SMALL, "--num-workers", "2")


def test_no_validation_split_is_said_aloud(vocab, tmp_path, capsys):
    source = write(tmp_path / "in.txt", TEXTS[:40])
    manifest = run_job(source, tmp_path / "out", vocab, validation_fraction=0.02)
    assert not (tmp_path / "out/validation").exists()
    assert (
        "no validation split: --validation-fraction 0.02 selects only" in capsys.readouterr().err
        and len(manifest["notes"]) == 1
    )


def test_short_documents_lose_few_pairs_to_the_balance_of_the_labels(vocab, tmp_path):
    """Of one to three sentences: the lone ones are divided between two words."""
    texts = [[paragraphs[0]] for paragraphs in documents(300, chinese=0)]
    texts = [[". ".join(text[0].split(". ")[: 1 + i % 3])] for i, text in enumerate(texts)]
    source = write(tmp_path / "in.txt", texts)
    manifest = run_job(source, tmp_path / "out", vocab, max_seq_length=(64,), validation_fraction=0)
    pairs = manifest["counters"]["pairs"]
    assert pairs["pairs-of-one-sentence/64"] > 100 and pairs["pairs-dropped/64"] < 0.1 * pairs["pairs/64"]
    assert abs(pairs["pairs/64"] - 2 * pairs["pairs-random/64"]) <= 2  # one a copy
