"""Whole preprocessing jobs with other tokenizers than BERT's: ids, sentences, words, and every command that reads them."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from bertloom.manifest import read_dataset
from jobs import cli
from jobs.explain import Explainer
from jobs.verify import verify
from pipeline.dataset import vocabulary_of
from pipeline.examples.decoding import true_ids
from tests.bertloom.tokenizer_kinds import CONTENTS, NAMES
from tests.jobs.corpus import digests, documents, run_job, shard_digests, write

TEXTS = documents(60)
KINDS = {
    "roberta": {"do_whole_word_mask": True},
    "xlm_roberta": {"pairs": "none", "mask_spans": True},
    "mpnet": {"pairs": "sop"},
    "gemma": {"compat": "google", "do_whole_word_mask": True},
}
SMALL = {"max_seq_length": (32,), "dupe_factor": 1}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write(tmp_path_factory.mktemp("any") / "texts.jsonl", TEXTS)


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory):
    """Kind of a tokenizer -> its folder."""
    folder = tmp_path_factory.mktemp("tokenizers")
    for kind, content in CONTENTS.items():
        (folder / kind).mkdir()
        (folder / kind / "tokenizer.json").write_text(json.dumps(content))
        if kind in NAMES:
            (folder / kind / "special_tokens_map.json").write_text(json.dumps(NAMES[kind]))
    return {kind: folder / kind for kind in CONTENTS}


@pytest.fixture(scope="module")
def made(source, vocabularies, tmp_path_factory):
    """Kind -> its data set."""
    folder = tmp_path_factory.mktemp("made")
    for kind, options in KINDS.items():
        run_job(source, folder / kind, vocabularies[kind], **SMALL, **options)
    return {kind: folder / kind for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_data_set_holds_its_tokenizer_and_verifies(made, kind):
    assert verify(str(made[kind]))[0] == []
    manifest, _ = read_dataset(str(made[kind]))
    vocabulary = vocabulary_of(str(made[kind]), manifest)
    assert manifest["vocabulary"] == vocabulary.as_dict() and manifest["vocabulary"]["file"] == "tokenizer.json"
    assert {"tokenizer.json", "special_tokens_map.json"} <= manifest["files"].keys()
    assert not (made[kind] / "vocab.txt").exists()
    assert manifest["files"]["tokenizer.json"] == manifest["vocabulary"]["sha256"]
    casing = [manifest["configuration"][name] for name in ("do_lower_case", "strip_accents")]
    assert casing == [None, None]


@pytest.mark.parametrize("kind", KINDS)
def test_every_example_is_explained_and_made_again(made, kind):
    explainer = Explainer(str(made[kind]))
    for index in range(0, explainer.num_examples, 7):
        found = explainer.explain(index)
        assert found["agrees"], (index, found)
        assert " ".join(found["a"]["text"].split())  # its bytes are found in the source


@pytest.mark.parametrize("kind", ["roberta", "xlm_roberta"])
def test_the_segments_of_the_examples_are_the_text(made, kind, source):
    explainer = Explainer(str(made[kind]))
    texts = [" ".join(json.loads(line)["text"].split()) for line in source.read_text().splitlines()]
    for index in range(0, explainer.num_examples, 11):
        found = explainer.explain(index)
        text = "".join(" ".join(found["a"]["text"].split()))
        assert any(text in whole for whole in texts)
        if kind == "roberta":  # it knows every character
            shard, place = explainer._locate(index)
            example, _ = explainer._read(shard, place)
            truth = true_ids(example)[1 : example["segment_b_start"] - 1]
            assert explainer.vocabulary.readable.text(truth) == text.strip()


def test_whole_words_are_masked_as_the_tokenizer_cuts_them(made):
    explainer = Explainer(str(made["roberta"]))
    seen = 0
    for index in range(0, explainer.num_examples, 5):
        shard, place = explainer._locate(index)
        example, _ = explainer._read(shard, place)
        woven = explainer.bucket(shard["split"], shard["number"]).weave(shard["max_seq_length"], shard["copy"])
        head, pair = woven.sentences.head, woven.pairs.take(slice(place, place + 1))
        masked = {at - 1 for at in example["masked_lm_positions"] if at < example["segment_b_start"] - 1}
        start, length = int(pair.a_start[0]), int(pair.a_length[0])
        for i in range(1, length):
            if not head[start + i]:  # continues the word of the token before
                assert (i in masked) == (i - 1 in masked), (index, i)
                seen += i in masked
    assert seen > 20


@pytest.mark.parametrize("kind", KINDS)
def test_the_commands_show_readable_text(made, kind, tmp_path, capsys):
    assert cli.main(["inspect", str(made[kind]), "--examples", "3"]) in (0, None)
    shown = capsys.readouterr().out
    assert not [mark for mark in "Ġ▁Ã" if mark in shown] and "⟦MASK→" in shown
    cli.main(["export-data", str(made[kind]), "--out", str(tmp_path / "x.parquet"), "--with-text", "--split", "train"])
    table = pq.read_table(tmp_path / "x.parquet")
    tokens = [token for row in table["tokens"].to_pylist() for token in row]
    assert not [token for token in tokens if token[0] in "Ġ▁Ã"]
    assert all(table["text_a"].to_pylist())
    report = json.loads((made[kind] / "report.json").read_text()) if (made[kind] / "report.json").exists() else None
    assert report is None
    assert cli.main(["report", str(made[kind]), "--gates.no-fail"]) == 0
    report = json.loads((made[kind] / "report.json").read_text())
    assert not [mark for mark in "Ġ▁Ã" if mark in (made[kind] / "report.html").read_text()]
    assert report["words"]["scripts"].get("Latin", 0) > 0.2
    assert verify(str(made[kind]))[0] == []


def test_how_files_are_split_never_shows(source, vocabularies, made, tmp_path):
    for options in ({"split_mb": 0.01}, {"split_mb": 0.003, "num_workers": 2}):
        out = tmp_path / str(len(options))
        run_job(source, out, vocabularies["roberta"], **SMALL, **KINDS["roberta"], **options)
        found, expected = (shard_digests(path) for path in (out, made["roberta"]))
        assert found == expected


def test_another_tokenizer_makes_other_tokens_in_the_same_work_folder(source, vocabularies, made, tmp_path):
    work = tmp_path / "work"
    for kind in ("roberta", "mpnet", "roberta"):
        shutil.rmtree(tmp_path / kind, ignore_errors=True)
        run_job(source, tmp_path / kind, vocabularies[kind], work_dir=str(work), **SMALL, **KINDS[kind])
        assert shard_digests(tmp_path / kind) == shard_digests(made[kind])


def test_other_special_tokens_are_another_configuration(source, vocabularies, tmp_path):
    folder = tmp_path / "tokenizer"
    shutil.copytree(vocabularies["roberta"], folder)
    run_job(source, tmp_path / "out", folder, **SMALL)
    (folder / "special_tokens_map.json").write_text('{"mask_token": "<unk>", "unk_token": "<mask>"}')
    with pytest.raises(ValueError, match="another configuration"):
        run_job(source, tmp_path / "out", folder, **SMALL)


@pytest.mark.parametrize("form", ["tokenizer.json", "folder"])
def test_bert_s_own_tokenizer_json_gives_the_data_set_of_its_vocab_txt(source, vocabularies, tmp_path, form):
    from pipeline.vocabulary_files import read_vocabulary

    folder = vocabularies["bert"]
    (tmp_path / "vocab.txt").write_bytes(read_vocabulary(str(folder)).text)
    given = folder / "tokenizer.json" if form == "tokenizer.json" else folder
    run_job(source, tmp_path / "json", given, **SMALL)
    run_job(source, tmp_path / "txt", tmp_path / "vocab.txt", **SMALL)
    assert digests(tmp_path / "json") == digests(tmp_path / "txt")
    assert (tmp_path / "json" / "vocab.txt").exists()
    with pytest.raises(ValueError, match="--no-do-lower-case: the tokenizer of .* lower-cases the text"):
        run_job(source, tmp_path / "no", given, do_lower_case=False)


def test_flags_that_mean_nothing_are_one_clear_line(source, vocabularies, tmp_path, capsys):
    words = ["preprocess", "--input", str(source), "--out", str(tmp_path / "out")]
    for flag in (["--no-do-lower-case"], ["--strip-accents", "False"]):
        assert cli.main([*words, "--vocab", str(vocabularies["roberta"]), *flag]) == 2
        error = capsys.readouterr().err
        assert "is not BERT's tokenizer" in error and "leave the flag out" in error
    assert not (tmp_path / "out").exists()


def test_preview_counts_the_tokens_of_any_tokenizer(source, vocabularies, capsys):
    cli.main(["preview", str(source), "--vocab", str(vocabularies["roberta"])])
    assert "[UNK]       0.000% of the tokens" in capsys.readouterr().out
    cli.main(["preview", str(source), "--vocab", str(vocabularies["xlm_roberta"]), "--no-do-lower-case"])
    shown = capsys.readouterr().out
    assert "[UNK]" in shown and "is not BERT's tokenizer" in shown
