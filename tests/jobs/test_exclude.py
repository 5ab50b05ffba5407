"""`preprocess --exclude`: documents that share a run of 13 words with a test set are left out and counted."""

import gzip
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertloom.manifest import manifest_sha256, manifest_text
from jobs import cli
from jobs.preprocess import PreprocessConfig
from jobs.support.config import parse
from jobs.verify import verify
from tests.jobs.corpus import digests, documents, run_job, shard_digests, write
from tests.pipeline.twins_of_exclusion import sets_shared

TEXTS = documents(60)
ONE = {"max_seq_length": (32,), "dupe_factor": 1, "validation_fraction": 0.0}


def leaks(number, seed):
    """Paragraphs of the corpus of at least 13 words, as a test set has them: in capital letters, in other lines."""
    chosen = [text for text in TEXTS[seed::7] if sets_shared(text[0], {"x": [text[0]]})][:number]
    assert len(chosen) == number
    return [text[0].upper().replace(", ", " \n").replace("，", " ") for text in chosen]


@pytest.fixture(scope="module")
def made(vocab, tmp_path_factory):
    """A data set without the documents that two test sets hold."""
    folder = tmp_path_factory.mktemp("exclude")
    write(folder / "in/a.txt", TEXTS[:30])
    write(folder / "in/b.jsonl", TEXTS[30:])
    sets = {"a/test.jsonl": leaks(3, 0), "b/test.json": leaks(2, 31)}
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    rows = [{"id": i, "question": "Too short?", "passage": text} for i, text in enumerate(sets["a/test.jsonl"])]
    (folder / "a/test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"passage": "short"}]))
    squad = [{"title": "T", "paragraphs": [{"context": text, "qas": []}]} for text in sets["b/test.json"]]
    (folder / "b/test.json").write_text(json.dumps({"version": "1.1", "data": squad}))
    manifest = run_job(folder / "in", folder / "out", vocab, **ONE, **flags(folder))
    return folder, manifest, sets


def flags(folder):
    return {"exclude": (f"{folder}/[ab]/test.json*",)}


def rejects(dataset):
    with gzip.open(dataset / "rejects/rejects.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_planted_leaks_are_left_out_and_counted_for_each_test_set(made):
    folder, manifest, sets = made
    shared = [sets_shared("\n".join(text), sets) for text in TEXTS]
    counters = manifest["counters"]
    assert sum(map(bool, shared)) >= 5
    assert counters["rejected"]["in-test-set"] == sum(map(bool, shared))
    assert counters["documents_in"] == 60 == counters["documents_used"] + counters["documents_rejected"]
    found = manifest["excluded"]["sets"]
    assert [(one["name"], one["records"], one["records_without_run"]) for one in found] == [
        ("a/test.jsonl", 4, 1),
        ("b/test.json", 2, 0),
    ]
    assert [one["documents"] for one in found] == [sum(name in names for names in shared) for name in sorted(sets)]
    assert manifest["notes"][0] == (
        "--exclude: 1 record without a text of 13 words cannot be found: 1 of 4 in a/test.jsonl"
    )


def test_a_reject_names_the_set_the_record_and_the_run(made):
    folder, _, sets = made
    found = [one for one in rejects(folder / "out") if one["reason"] == "in-test-set"]
    assert any(one["detail"].startswith("a/test.jsonl, line 1, passage: ") for one in found)
    assert any(one["detail"].startswith("b/test.json, data[1], paragraphs[1].context: ") for one in found)
    assert all(one["test_sets"] for one in found)


def test_the_summary_and_the_report_show_the_test_sets(made, vocab, capsys):
    folder, _, _ = made
    argv = ["preprocess", "--input", f"{folder}/in", "--vocab", str(vocab), "--out", str(folder / "out")]
    argv += ["--max-seq-length", "32", "--dupe-factor", "1", "--validation-fraction", "0", "--gates.no-fail"]
    assert cli.main([*argv, "--exclude", *flags(folder)["exclude"]]) == 0
    said = capsys.readouterr()
    assert "is already complete" in said.err
    assert " with a/test.jsonl" in said.out and " in-test-set" in said.out
    assert "a/test.jsonl" in (folder / "out/report.html").read_text()
    assert cli.main(["verify", str(folder / "out")]) == 0
    assert cli.main(["explain", str(folder / "out"), "0"]) in (0, None)


def test_verify_compares_the_counts_of_test_sets_with_the_rejects(made, tmp_path):
    folder, manifest, _ = made
    shutil.copytree(folder / "out", tmp_path / "out")

    def faults(excluded):
        changed = {**manifest, "excluded": excluded}
        changed.pop("out")
        changed["sha256"] = manifest_sha256(changed)
        (tmp_path / "out/manifest.json").write_bytes(manifest_text(changed))
        for name in ("report.html", "report.json"):
            (tmp_path / "out" / name).unlink(missing_ok=True)
        return verify(str(tmp_path / "out"))[0]

    assert faults(manifest["excluded"]) == []
    sets = [{**one, "documents": one["documents"] + 1} for one in manifest["excluded"]["sets"]]
    [fault] = faults({**manifest["excluded"], "sets": sets})
    assert "documents in test sets, but manifest.json counts {'a/test.jsonl': " in fault
    [fault] = faults([])
    assert "excluded" in fault


@pytest.mark.parametrize("options", [{"num_workers": 2, "split_mb": 0.002}, {"split_mb": 0.0003}], ids=str)
def test_the_data_set_is_the_same_with_more_workers_and_smaller_splits(made, vocab, tmp_path, options):
    folder, manifest, _ = made
    again = run_job(folder / "in", tmp_path / "again", vocab, **ONE, **options, **flags(folder))
    assert shard_digests(tmp_path / "again") == shard_digests(folder / "out")
    assert digests(tmp_path / "again", "documents/") == digests(folder / "out", "documents/")
    assert again["excluded"] == manifest["excluded"]

    def key(reject):
        return reject["source"], reject["position"]

    assert sorted(rejects(tmp_path / "again"), key=key) == sorted(rejects(folder / "out"), key=key)


def test_tokens_are_used_again_only_with_the_same_test_sets(made, vocab, tmp_path, capsys):
    folder, manifest, _ = made
    work = {"work_dir": tmp_path / "work"}
    whole = run_job(folder / "in", tmp_path / "whole", vocab, **ONE, **work)
    assert "excluded" not in whole
    parts = set((tmp_path / "work/parts").iterdir())
    without = run_job(folder / "in", tmp_path / "without", vocab, **ONE, **work, **flags(folder))
    assert set((tmp_path / "work/parts").iterdir()) > parts
    assert shard_digests(tmp_path / "without") == shard_digests(folder / "out")
    assert whole["configuration_digest"] != without["configuration_digest"] == manifest["configuration_digest"]
    moved = tmp_path / "moved"
    for name in ("a/test.jsonl", "b/test.json"):
        (moved / name).parent.mkdir(parents=True)
        (moved / name).write_bytes((folder / name).read_bytes())
    again = run_job(folder / "in", tmp_path / "moved-out", vocab, **ONE, **work, **flags(moved))
    assert again["configuration_digest"] == manifest["configuration_digest"]
    with pytest.raises(ValueError, match=r"another configuration \(exclude differ\)"):
        run_job(folder / "in", tmp_path / "without", vocab, **ONE)


def test_documents_of_the_validation_input_are_not_searched(made, vocab, tmp_path):
    folder, _, sets = made
    write(tmp_path / "held/v.txt", TEXTS[:30])
    manifest = run_job(
        folder / "in/b.jsonl",
        tmp_path / "out",
        vocab,
        **ONE,
        **flags(folder),
        validation_input=(str(tmp_path / "held"),),
    )
    shared = [sets_shared("\n".join(text), sets) for text in TEXTS[30:]]
    assert manifest["counters"]["rejected"]["in-test-set"] == sum(map(bool, shared)) > 0


def test_a_file_that_is_named_twice_is_one_test_set(made, vocab, tmp_path):
    folder = made[0]
    twice = (f"{folder}/a/test.jsonl", f"{folder}/b/../a/test.jsonl", f"{folder}/a")
    manifest = run_job(folder / "in", tmp_path / "out", vocab, **ONE, exclude=twice)
    assert [one["name"] for one in manifest["excluded"]["sets"]] == ["test.jsonl"]


def test_columns_can_be_named(made, vocab, tmp_path):
    folder, _, sets = made
    named = {"exclude": (f"{folder}/a/test.jsonl",), "exclude_columns": ("passage",)}
    found = run_job(folder / "in", tmp_path / "out", vocab, **ONE, **named)["excluded"]["sets"]
    assert found[0]["documents"] >= 3
    with pytest.raises(ValueError, match=r"--exclude .*/a/test.jsonl: has no text in answer \(--exclude-columns\)"):
        run_job(folder / "in", tmp_path / "no", vocab, **ONE, **{**named, "exclude_columns": ("answer",)})


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "json", "csv", "tsv", "txt", "parquet", "arrow", "conll"])
def test_a_test_set_may_have_any_format_of_a_task(vocab, tmp_path, ending):
    text = next(text[0] for text in TEXTS if len(text[0].split()) >= 14)
    path, rows = tmp_path / f"test.{ending}", [{"q": "Short", "text": text}, {"q": "Also", "text": "short"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    table = pa.Table.from_pylist(rows)
    match ending:
        case "jsonl":
            path.write_bytes(lines)
        case "jsonl.gz":
            path.write_bytes(gzip.compress(lines))
        case "json":
            path.write_text(json.dumps(rows))
        case "csv":
            path.write_text(f'q,text\nShort,"{text}"\nAlso,short\n')
        case "tsv":
            path.write_text(f"q\ttext\nShort\t{text}\nAlso\tshort\n")
        case "txt":
            path.write_text(f"{text}\nshort\n")
        case "conll":
            path.write_text("".join(f"{word} O\n" for word in text.split()) + "\nshort O\n")
        case "parquet":
            pq.write_table(table, path)
        case "arrow":
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
    write(tmp_path / "in/a.txt", TEXTS)
    manifest = run_job(tmp_path / "in", tmp_path / "out", vocab, **ONE, exclude=(str(path),))
    [found] = manifest["excluded"]["sets"]
    assert (found["name"], found["records"], found["records_without_run"]) == (path.name, 2, 1)
    assert found["documents"] == sum(bool(sets_shared("\n".join(one), {"x": [text]})) for one in TEXTS) > 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.jsonl", None, r"--exclude .*missing.jsonl: no file matches. Expected names that end in .*\.jsonl"),
        ("*.jsonl", None, r"--exclude .*\*.jsonl: no file matches. Expected names that end in"),
        ("a.bin", b"text", r"--exclude .*a.bin: unknown format: expected a name that ends in .*\.jsonl"),
        ("a.jsonl", b'{"n": 1}\n', r"--exclude .*a.jsonl: has no text. Expected records with texts"),
        ("a.jsonl", b"", r"--exclude .*a.jsonl: has no text"),
        ("a.jsonl", b"{", r"--exclude .*a.jsonl: line 1: is not JSON"),
        ("a.json", b"{", r"--exclude .*a.json is not JSON \(.*\): if each line is an object, name it .jsonl"),
        ("a.parquet", b"PAR1", r"--exclude .*a.parquet is not a Parquet file"),
    ],
)
def test_a_test_set_that_cannot_be_used_is_an_error(vocab, tmp_path, name, content, message):
    write(tmp_path / "in/a.txt", TEXTS[:3])
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        run_job(tmp_path / "in", tmp_path / "out", vocab, **ONE, exclude=(str(tmp_path / name),))
    assert not (tmp_path / "out").exists()


def test_the_flags_can_be_in_a_preset(tmp_path):
    (tmp_path / "preset.toml").write_text('exclude = ["a.jsonl", "b.jsonl"]\nexclude_columns = ["text"]\n')
    argv = [f"{tmp_path}/preset.toml", "--input", "in", "--vocab", "v", "--out", "o", "--exclude", "c.jsonl"]
    found = parse(PreprocessConfig, argv, prog="bertloom preprocess").test_sets
    assert (found.exclude, found.exclude_columns) == (("c.jsonl",), ("text",))


def test_columns_without_test_sets_are_an_error(vocab, tmp_path):
    with pytest.raises(ValueError, match="--exclude-columns text: is for the files of --exclude"):
        run_job(tmp_path, tmp_path / "out", vocab, exclude_columns=("text",))


def test_if_all_documents_are_in_test_sets_the_error_names_one(vocab, tmp_path):
    text = "a b c d e f g h i j k l m n"
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ValueError, match=r"no documents.*1 in-test-set, the first in a.txt .*a.txt, line 1"):
        run_job(tmp_path / "a.txt", tmp_path / "out", vocab, **ONE, exclude=(str(tmp_path / "a.txt"),))
