"""Whole jobs over inputs of every kind: the same shards from the same texts, and every record accounted for."""

import bz2
import csv
import gzip
import json
from pathlib import Path
from xml.sax.saxutils import escape

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import cli
from jobs.build_vocab import main as build_vocab
from jobs.explain import main as explain
from jobs.support.summary import print_summary
from jobs.verify import verify
from tests.jobs.corpus import as_txt, documents, run_job, shard_digests, write

TEXTS = documents(120)
ONE = {"max_seq_length": (32,), "dupe_factor": 1}


@pytest.fixture(scope="module")
def expected(vocab, tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("plain")
    run_job(write(folder / "in.txt", TEXTS), folder / "out", vocab, **ONE)
    return shard_digests(folder / "out")


def table(texts) -> pa.Table:
    return pa.table(
        {"id": [f"d{i}" for i in range(len(texts))], "text": ["\n\n".join(paragraphs) for paragraphs in texts]}
    )


def parquet(folder: Path) -> dict[str, object]:
    pq.write_table(table(TEXTS), folder / "a.parquet", row_group_size=7)
    return {"split_mb": 0.002}


def saved_data_set(folder: Path) -> dict[str, object]:
    (folder / "train").mkdir()
    with pa.ipc.new_stream(folder / "train/data-00000-of-00001.arrow", table(TEXTS).schema) as writer:
        writer.write_table(table(TEXTS), max_chunksize=9)
    (folder / "train/state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
    return {"split_mb": 0.002}


def compressed_arrow_file(folder: Path) -> dict[str, object]:
    renamed = table(TEXTS).rename_columns(["id", "content"])
    with gzip.open(folder / "a.arrow.gz", "wb") as file, pa.ipc.new_file(file, renamed.schema) as writer:
        writer.write_table(renamed)
    return {"text_column": "content"}


def dump(folder: Path) -> dict[str, object]:
    pages = [
        f"<page><title>T{i}</title><ns>0</ns><revision><text>{escape(chr(10).join(paragraphs))}</text></revision></page>"
        for i, paragraphs in enumerate(TEXTS)
    ]
    xml = f"<mediawiki>{''.join(pages)}</mediawiki>"
    (folder / "wiki-pages-articles1.xml-p1p120.bz2").write_bytes(bz2.compress(xml.encode()))
    return {}


def lines(folder: Path) -> dict[str, object]:
    singles = ["\n".join(paragraphs) for paragraphs in TEXTS if len(paragraphs) == 1]
    others = [paragraphs for paragraphs in TEXTS if len(paragraphs) > 1]
    (folder / "a.txt").write_text("\n".join(singles), encoding="utf-8")
    write(folder / "b.jsonl", others)
    return {"text_layout": "line"}


def files(folder: Path) -> dict[str, object]:
    for i, paragraphs in enumerate(TEXTS):
        text = "\n\n".join(paragraph.replace(" ", "\n", 1) for paragraph in paragraphs)  # hard-wrapped
        (folder / f"{i:03d}.txt").write_text(text, encoding="utf-8")
    return {"text_layout": "file", "line_breaks": "space"}


def json_by_other_names(folder: Path) -> dict[str, object]:
    objects = table(TEXTS).to_pylist()
    (folder / "a.json").write_text(json.dumps(objects[:30], indent=1), encoding="utf-8")
    for name, some in (("b.json.gz", objects[30:60]), ("part-00000", objects[60:90]), ("AA.bz2", objects[90:])):
        (folder / name).write_text("".join(json.dumps(one) + "\n" for one in some), encoding="utf-8")
    (folder / "b.json.gz").write_bytes(gzip.compress((folder / "b.json.gz").read_bytes()))
    (folder / "AA.bz2").write_bytes(bz2.compress((folder / "AA.bz2").read_bytes()))
    (folder / "config.json").write_text('{\n "version": 1\n}')
    return {"split_mb": 0.002}


def csv_and_tsv(folder: Path) -> dict[str, object]:
    rows = [[i, "\n\n".join(paragraphs)] for i, paragraphs in enumerate(TEXTS)]
    with open(folder / "a.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=";").writerows([["id", "text"], *(row for row in rows if "\n" in row[1])])
    singles = "".join(f"{i}\t{text}\n" for i, text in rows if "\n" not in text)
    (folder / "b.tsv").write_text("id\ttext\n" + singles, encoding="utf-8")
    return {"split_mb": 0.002}


def utf_16(folder: Path) -> dict[str, object]:
    (folder / "a.txt").write_bytes(as_txt(TEXTS).decode().encode("utf-16"))
    return {}


def mixture(folder: Path) -> dict[str, object]:
    pq.write_table(table(TEXTS[:40]), folder / "a.parquet")
    write(folder / "b.jsonl.gz", TEXTS[40:80])
    write(folder / "c.txt", TEXTS[80:])
    return {}


FORMS = [
    parquet,
    saved_data_set,
    compressed_arrow_file,
    dump,
    lines,
    files,
    utf_16,
    mixture,
    json_by_other_names,
    csv_and_tsv,
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_the_same_texts_give_the_same_shards_in_every_format(tmp_path, vocab, expected, form):
    (tmp_path / "in").mkdir()
    options = form(tmp_path / "in")
    manifest = run_job(tmp_path / "in", tmp_path / "out", vocab, **ONE, **options)
    assert shard_digests(tmp_path / "out") == expected
    assert manifest["counters"]["documents_in"] == 120
    assert [explain([str(tmp_path / "out"), str(i)]) for i in (0, 40)] == [0, 0]
    assert ("mwparserfromhell" in manifest["versions"]) is (form is dump)


def test_words_with_nuls_behind_them_give_the_same_shards_whichever_file_they_are_in(tmp_path, vocab):
    nul, plain = ["Oh abcdefgé.\0 Next is the end."], ["Er sagte abcdefgé. Next comes the end."]
    shards = []
    for i, files in enumerate(([[plain, nul, *TEXTS]], [[plain], [nul, *TEXTS]], [[nul], [*TEXTS, plain]])):
        for j, texts in enumerate(files):
            write(tmp_path / f"{i}/{j}.jsonl", texts)
        run_job(tmp_path / f"{i}", tmp_path / f"out{i}", vocab, **ONE)
        shards.append(shard_digests(tmp_path / f"out{i}"))
    assert shards[0] == shards[1] == shards[2]


def test_a_sample_is_the_same_documents_however_they_lie_in_files(tmp_path, vocab):
    write(tmp_path / "one/in.txt", TEXTS)
    for i in range(0, 120, 20):
        write(tmp_path / f"many/{i}.jsonl", TEXTS[i : i + 20][::-1])
    shards = []
    for sub in ("one", "many"):
        manifest = run_job(tmp_path / sub, tmp_path / f"out-{sub}", vocab, **ONE, sample=0.5)
        counters = manifest["counters"]
        assert counters["documents_in"] + counters["passed_over"]["not-sampled"] == 120
        assert manifest["configuration"]["sample"] == 0.5 and 40 < counters["documents_in"] < 80
        shards.append(shard_digests(tmp_path / f"out-{sub}"))
    assert shards[0] == shards[1]


def test_a_sample_of_a_number_of_documents_is_exact_and_the_same_however_it_is_read(tmp_path, vocab):
    write(tmp_path / "one/in.txt", [*TEXTS, *TEXTS[:50]])  # equal texts count once
    for i in range(0, 120, 20):
        write(tmp_path / f"many/{i}.jsonl", TEXTS[i : i + 20][::-1])
    made = {}
    for out, source, options in (
        ("a", "one", {"sample": 30}),
        ("b", "many", {"sample": 30, "num_workers": 2, "split_mb": 0.001}),
        ("all", "many", {"sample": 500}),
        ("lines", "many", {"sample": 30, "max_line_repeats": 100, "unicode_normalization": "NFC"}),
    ):
        made[out] = run_job(tmp_path / source, tmp_path / out, vocab, **ONE, **options)
        assert made[out]["configuration"]["sample"] == options["sample"]
    assert shard_digests(tmp_path / "a") == shard_digests(tmp_path / "b")
    counters = {out: manifest["counters"] for out, manifest in made.items()}
    found = [of["documents_used"] + of["rejected"].get("no-example", 0) for of in counters.values()]
    assert found == [30, 30, 120, 30]  # some are too short for an example of their own
    assert counters["b"]["passed_over"] == {"not-sampled": 90} and counters["all"]["passed_over"] == {}
    assert verify(str(tmp_path / "a"))[0] == []
    run_job(tmp_path / "many", tmp_path / "more", vocab, **ONE, sample=60)
    ids = [
        {i for page in (tmp_path / out).glob("documents/*/*.parquet") for i in pq.read_table(page)["id"].to_pylist()}
        for out in ("a", "more")
    ]
    assert ids[0] < ids[1] and len(ids[1]) == 60


def test_a_vocabulary_of_a_sample_counts_its_documents(tmp_path, capsys):
    write(tmp_path / "in.jsonl", TEXTS)
    flags = ["--input", f"{tmp_path}/in.jsonl", "--vocab-size", "300", "--out", f"{tmp_path}/v.txt", "--sample", "25"]
    build_vocab(flags)
    assert "from       25 documents" in capsys.readouterr().out


def test_cleaning_is_counted_said_and_in_the_manifest(tmp_path, vocab, capsys):
    texts = [[f"{paragraph} cafe\u0301" for paragraph in paragraphs] for paragraphs in TEXTS[:30]]
    write(tmp_path / "a.txt", [*TEXTS[30:], *texts, ["Short."], ["Ladida. " * 999], ["\u200b\u200d"]])
    manifest = run_job(
        tmp_path / "a.txt",
        tmp_path / "out",
        vocab,
        **ONE,
        unicode_normalization="NFC",
        remove_control_characters=True,
        min_characters=10,
        max_characters=5000,
    )
    counters = manifest["counters"]
    assert counters["cleaned"] == {"unicode-normalization": 30}
    rejected = {reason: number for reason, number in counters["rejected"].items() if reason != "no-example"}
    assert rejected == {"empty-text": 1, "too-long": 1, "too-short": 1}
    assert manifest["configuration"]["unicode_normalization"] == "NFC"
    assert manifest["configuration"]["fix_text"] is False
    assert "unicode" in manifest["versions"] and "ftfy" not in manifest["versions"]
    print_summary(manifest)
    out = capsys.readouterr().out
    assert "cleaned             30 unicode-normalization" in out and "rejected             1 too-short" in out


def rejects(dataset: Path) -> list[tuple]:
    with gzip.open(dataset / "rejects/rejects.jsonl.gz", "rt", encoding="utf-8") as log:
        rows = [json.loads(line) for line in log]
    return [(row["source"], row["position"], row["reason"], row["text"][:30], row.get("id")) for row in rows]


def test_awkward_files_are_all_read_or_named(tmp_path, vocab, capsys):
    """The awkward inputs that people have, small: what is sound is kept, and all else is told by file and place."""
    folder = tmp_path / "in"
    write(folder / "clean.txt", TEXTS[:60])
    write(folder / "bom.txt", TEXTS[60:64])
    (folder / "bom.txt").write_bytes(b"\xef\xbb\xbf" + (folder / "bom.txt").read_bytes())
    (folder / "crlf.txt").write_bytes(as_txt(TEXTS[64:68]).replace(b"\n", b"\r\n"))
    (folder / "latin1.txt").write_bytes("Un café déjà vu, une façade naïve. Voilà l'été.\n".encode("latin-1") * 3)
    (folder / "damaged.txt").write_bytes(as_txt(TEXTS[68:72]).replace(b" ", b"\xff", 3))
    (folder / "nul.txt").write_bytes(b"bada\x00 bebe\x00 bibi. Bobo.\n\nnext\x00 one.\n")
    (folder / "empty.txt").write_bytes(b"")
    (folder / "newlines.txt").write_bytes(b"\n" * 100)
    (folder / "word.txt").write_bytes(b"x" * 200_000 + b" http://" + b"y" * 100_000)
    whole = gzip.compress("\n\n".join(f"Document {i} {hash(i)} speaks." for i in range(9999)).encode())
    (folder / "cut.txt.gz").write_bytes(whole[: len(whole) * 2 // 3])
    (folder / "multi.txt.bz2").write_bytes(b"".join(bz2.compress(as_txt([text]) + b"\n") for text in TEXTS[72:76]))
    rows = ['{"id": 1, "text": "Bada bebe. Bibi."}', '{"id": 2, "text": null}', "", '{"id": 4}', '{"text": "cut', "[1]"]
    (folder / "broken.jsonl").write_text("\n".join(rows))
    pq.write_table(pa.table({"text": ["Bada. Bebe.", None, ""], "id": [7, 8, 9]}), folder / "nulls.parquet")
    (folder / "table.xls").write_bytes(b"\xd0\xcf\x11\xe0")
    manifest = run_job(folder, tmp_path / "out", vocab, **ONE, pairs="none")
    counters = manifest["counters"]
    said = capsys.readouterr().err
    assert f"{folder}: 1 of 14 files skipped (1 .xls)" in said
    assert "latin1.txt: read as windows-1252" in said
    assert [note for note in manifest["notes"] if "files skipped" in note or "windows-1252" in note] == manifest[
        "notes"
    ][:2]
    assert counters["characters_replaced"] == 3
    found = [row for row in rejects(tmp_path / "out") if row[2] != "no-example"]
    position = found.pop([row[0] for row in found].index("cut.txt.gz"))[1]
    assert found == [
        ("broken.jsonl", 38, "text-not-a-string", '{"id": 2, "text": null}', "2"),
        ("broken.jsonl", 62, "blank-line", "", None),
        ("broken.jsonl", 63, "no-text-field", '{"id": 4}', "4"),
        ("broken.jsonl", 73, "not-json", '{"text": "cut', None),
        ("broken.jsonl", 87, "not-an-object", "[1]", None),
        ("nulls.parquet", 1, "text-not-a-string", "", "8"),
        ("nulls.parquet", 2, "empty-text", "", "9"),
    ]
    read = {row["name"]: row["documents"] for row in manifest["inputs"]}
    assert read.pop("cut.txt.gz") > 1000 and position > 10_000
    assert read == {
        "clean.txt": 60,
        "bom.txt": 4,
        "crlf.txt": 4,
        "latin1.txt": 1,
        "damaged.txt": 4,
        "nul.txt": 2,
        "empty.txt": 0,
        "newlines.txt": 0,
        "word.txt": 1,
        "multi.txt.bz2": 4,
        "broken.jsonl": 1,
        "nulls.parquet": 1,
    }


def test_a_vocabulary_is_made_from_the_documents_that_preprocess_will_take(tmp_path, capsys):
    pq.write_table(table(TEXTS).rename_columns(["id", "content"]), tmp_path / "a.parquet")
    flags = ["--text-column", "content", "--min-characters", "60", "--fix-text"]
    build_vocab(["--input", str(tmp_path), "--vocab-size", "400", "--out", str(tmp_path / "v.txt"), *flags])
    out = capsys.readouterr().out
    assert "too-short" in out
    assert f"--input {tmp_path} --fix-text --min-characters 60 --text-column content --vocab" in out


def test_repeated_lines_are_left_out_the_same_however_the_job_is_done(tmp_path, vocab, capsys):
    menu = ["Bada | Bebe | Bibi", "Bobo bubu."]
    texts = [[menu[0], *paragraphs, menu[1]] for paragraphs in TEXTS[:60]] + TEXTS[60:]
    write(tmp_path / "one/in.txt", [*texts, texts[0], texts[0], menu])
    for i, text in enumerate([*texts, menu]):
        write(tmp_path / f"many/{i:03d}.jsonl", [text])
    run_job(write(tmp_path / "clean.txt", TEXTS), tmp_path / "clean", vocab, **ONE)
    one = run_job(
        tmp_path / "one", tmp_path / "out", vocab, **ONE, max_line_repeats=5, split_mb=0.004, work_dir=tmp_path / "work"
    )
    run_job(tmp_path / "many", tmp_path / "other", vocab, **ONE, max_line_repeats=5, num_workers=2)
    assert shard_digests(tmp_path / "out") == shard_digests(tmp_path / "other") == shard_digests(tmp_path / "clean")
    counters = one["counters"]
    assert counters["cleaned"] == {"max-line-repeats": 62} and counters["documents_duplicate"] == 2
    assert ("in.txt", "empty-text") in {(row[0], row[2]) for row in rejects(tmp_path / "out")}
    counts = pq.read_table(tmp_path / "out/repeated_lines.parquet")["documents"].to_pylist()
    assert counts == [61, 61] and "repeated_lines.parquet" in one["files"]
    assert verify(str(tmp_path / "out"))[0] == []
    capsys.readouterr()
    assert explain([str(tmp_path / "out"), "0"]) == 0
    assert "all 9 columns agree with the shard" in capsys.readouterr().out
    again = run_job(
        tmp_path / "one",
        tmp_path / "again",
        vocab,
        **ONE,
        max_line_repeats=5,
        split_mb=0.004,
        work_dir=tmp_path / "work",
    )
    assert again["shards_digest"] == one["shards_digest"]
    assert "splits tokenized" in capsys.readouterr().err


def test_a_vocabulary_does_not_replace_a_text(tmp_path):
    text = write(tmp_path / "a.txt", TEXTS[:20])
    (tmp_path / "b.txt").symlink_to("a.txt")
    before = text.read_bytes()
    for out, says in (("a.txt", "is one of the inputs"), ("b.txt", "is one of the inputs"), ("", "is a folder")):
        with pytest.raises(ValueError, match=f"--out .* {says}"):
            build_vocab(["--input", str(text), "--vocab-size", "300", "--overwrite", "--out", str(tmp_path / out)])
    assert text.read_bytes() == before


def test_a_vocabulary_of_no_text_says_which_field_was_looked_for(tmp_path, capsys):
    text = write(tmp_path / "a.jsonl", TEXTS[:20])
    with pytest.raises(ValueError, match="no text in 1 file, 20 no-text-field: expected documents"):
        build_vocab(["--input", str(text), "--vocab-size", "300", "--text-column", "content", "--out", f"{tmp_path}/v"])
    said = capsys.readouterr().err
    assert "a.jsonl, byte 0: fields: id, text" in said
    assert "there is no field 'content'; name the field that holds the text with --text-column" in said


def test_files_that_are_documents_are_noted_where_blank_lines_cut_them(tmp_path, vocab, capsys):
    for i in range(6):
        paragraphs = [[paragraph] for text in TEXTS[i * 20 : i * 20 + 20] for paragraph in text]
        write(tmp_path / f"in/{i}.txt", paragraphs[:25])
        write(tmp_path / f"single/{i}.txt", [[f"word{i} and nothing else {j}."] for j in range(60)])
    says = "if each file is one document, give --text-layout file"
    command = ["preprocess", "--vocab", str(vocab), "--max-seq-length", "32", "--gates.no-fail"]
    assert cli.main([*command, "--input", f"{tmp_path}/in", "--out", f"{tmp_path}/out"]) == 0
    assert f"6 text files gave 150 documents of 4.0 sentences on average: {says}" in capsys.readouterr().err
    assert says in json.loads((tmp_path / "out/manifest.json").read_text())["notes"][-1]
    assert cli.main([*command, "--input", f"{tmp_path}/single", "--out", f"{tmp_path}/none"]) == 2
    assert f"6 text files gave 360 documents of 1.0 sentences on average: {says}" in capsys.readouterr().err
    flags = ["--text-layout", "file", "--out", f"{tmp_path}/file"]
    assert cli.main([*command, "--input", f"{tmp_path}/in", *flags]) == 0
    assert says not in capsys.readouterr().err


def test_a_file_whose_lines_are_documents_is_named_where_it_is_one_document(tmp_path, vocab, capsys):
    (tmp_path / "a.txt").write_text("\n".join(paragraph for text in TEXTS for paragraph in text), encoding="utf-8")
    command = ["preprocess", "--input", f"{tmp_path}/a.txt", "--vocab", str(vocab), "--out", f"{tmp_path}/out"]
    assert cli.main(command) == 2
    said = capsys.readouterr().err
    assert "1 text file gave 1 document of " in said and "if each line is a document, give --text-layout line" in said
