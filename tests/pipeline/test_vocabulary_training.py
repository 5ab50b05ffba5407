import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bertloom.tokenizer_files import parse_tokenizer, read_tokenizer
from jobs.build_vocab import BuildVocabConfig, _next_command, build_vocab
from jobs.cli import main
from jobs.preprocess import PreprocessConfig
from jobs.support.config import parse
from pipeline.options import flat
from pipeline.stages.word_cuts import count_words
from pipeline.tokenizer_models import wordpiece
from pipeline.tokenizer_models.training import Coverage, TrainingConfig, measure_coverage
from pipeline.vocabulary import SPECIAL_WORDS, Vocabulary, make_tokenizer, tokenizer_json
from pipeline.vocabulary_files import read_vocabulary

SAMPLE = Path(__file__).parent.parent.parent / "jobs" / "sample"


def train_vocabulary(counts: dict[str, int], vocab_size: int, **options) -> list[str]:
    return wordpiece.train_vocabulary(counts, TrainingConfig(vocab_size=vocab_size, do_lower_case=True, **options))


def coverage_of(vocabulary: Vocabulary, counts: dict[str, int]) -> dict[str, Coverage]:
    return measure_coverage(parse_tokenizer(tokenizer_json(vocabulary, True, None), "v"), counts)


def test_training_joins_the_most_frequent_pairs_first():
    words = train_vocabulary({"hug": 10, "pug": 5, "hugs": 5, "pun": 1}, vocab_size=19)
    assert words[:5] == list(SPECIAL_WORDS)
    assert words[5:11] == ["g", "h", "n", "p", "s", "u"] and words[11:15] == ["##g", "##n", "##s", "##u"]
    assert words[15:] == ["##ug", "hug", "pug", "hugs"]


def test_a_pair_below_the_minimum_frequency_is_not_joined():
    assert "ab" not in train_vocabulary({"ab": 2, "cd": 3}, vocab_size=100, min_frequency=3)
    assert "cd" in train_vocabulary({"ab": 2, "cd": 3}, vocab_size=100, min_frequency=3)


def test_characters_outside_the_coverage_become_unk():
    counts = {"a": 900, "b": 99, "c": 1}
    assert "c" not in train_vocabulary(counts, 100, character_coverage=0.999)
    assert "c" in train_vocabulary(counts, 100, character_coverage=1.0)


def test_a_vocabulary_never_exceeds_its_size_and_keeps_the_most_frequent_characters():
    counts = {chr(0x4E00 + i): 100 - i for i in range(90)}
    words = train_vocabulary(counts, vocab_size=25)
    assert words[5:] == [chr(0x4E00 + i) for i in range(20)]
    with pytest.raises(ValueError, match="vocab_size=6: expected more than 6"):
        BuildVocabConfig(input=("x",), vocab_size=6, out="v")


def test_training_on_a_large_corpus_keeps_the_proportions(monkeypatch):
    counts = {"ab": 4_000_000, "cd": 2_000_000, "ef": 1}
    monkeypatch.setattr("pipeline.tokenizer_models.wordpiece.MAX_TRAINING_WORDS", 600)
    assert [word for word in train_vocabulary(counts, 100, character_coverage=1.0) if len(word) == 2] == ["ab", "cd"]


def test_training_gives_the_same_words_in_every_process():
    """`tokenizers` alone does not: it numbers characters in the order of a hash table."""
    code = (
        "import sys, hashlib, pathlib; from pipeline.tokenizer_models.wordpiece import train_vocabulary;"
        "from pipeline.tokenizer_models.training import TrainingConfig;"
        "from pipeline.stages.word_cuts import count_words;"
        "counts = count_words([pathlib.Path(sys.argv[1]).read_bytes()[:100_000]], True, None);"
        "words = train_vocabulary(counts, TrainingConfig(vocab_size=2000, do_lower_case=True));"
        "print(hashlib.sha256(repr(words).encode()).hexdigest())"
    )
    command = [sys.executable, "-c", code, str(SAMPLE / "en.jsonl")]
    runs = {subprocess.run(command, cwd=SAMPLE.parent.parent, check=True, capture_output=True).stdout for _ in range(3)}
    assert len(runs) == 1


def test_coverage_equals_a_count_of_the_tokenizers_output():
    text = (SAMPLE / "zh.txt").read_text("utf-8")[:70_000]
    counts = count_words([text.encode()], True, None)
    vocabulary = Vocabulary(tuple(train_vocabulary(counts, 2500)))
    scripts = coverage_of(vocabulary, counts)
    num_words, num_tokens, num_unknown = (
        sum(getattr(coverage, name) for coverage in scripts.values())
        for name in ("num_words", "num_tokens", "num_unknown")
    )
    ids = make_tokenizer(vocabulary, True, None).encode(text).ids
    assert (num_words, num_tokens, num_unknown) == (counts.total(), len(ids), ids.count(vocabulary.unk))
    assert 0 < num_unknown < 0.001 * num_tokens
    assert list(scripts) == ["Chinese characters", "punctuation"] and scripts["punctuation"].num_unknown == 0


def test_coverage_is_reported_by_script():
    vocabulary = Vocabulary((*SPECIAL_WORDS, "the", "c", "##at", "中", "で", "##す", "!"))
    scripts = coverage_of(vocabulary, {"the": 5, "cat": 2, "中": 3, "文": 1, "です": 2, "!": 1, "кот": 1, "42": 1})
    assert {name: (c.num_words, c.num_tokens, c.num_unknown) for name, c in scripts.items()} == {
        "Latin": (7, 9, 0),
        "Chinese characters": (4, 4, 1),
        "Hiragana": (2, 4, 0),
        "Cyrillic": (1, 1, 1),
        "digits": (1, 1, 1),
        "punctuation": (1, 1, 0),
    }


def test_words_that_are_too_long_do_not_affect_training():
    counts = {"ab": 9, "abc": 5, "x": 1}
    assert train_vocabulary({**counts, "ด" * 101: 50}, 30) == train_vocabulary(counts, 30)


def test_frequent_chinese_characters_are_kept_whatever_their_share():
    counts = {"a": 10_000, "中": 5, "文": 4, "я": 5}
    assert "中" not in train_vocabulary(counts, 100, character_coverage=0.9)
    words = train_vocabulary(counts, 100, character_coverage=0.9, chinese_frequency=5)
    assert "中" in words and "文" not in words and "я" not in words


# ---- the job


def arguments(tmp_path, *more):
    return ["build-vocab", "--input", str(tmp_path / "*.jsonl"), "--vocab-size", "300", *more]


@pytest.fixture
def corpus(tmp_path):
    lines = (SAMPLE / "en.jsonl").read_text("utf-8").splitlines(keepends=True)
    (tmp_path / "a.jsonl").write_text("".join(lines[:4]), "utf-8")
    (tmp_path / "b.jsonl").write_text("not json\n" + "".join(lines[4:8]), "utf-8")
    return tmp_path


def test_the_job_writes_a_readable_vocabulary_and_prints_what_it_read(corpus, capsys):
    out = corpus / "new" / "vocab.txt"
    assert main(arguments(corpus, "--out", str(out))) == 0
    vocabulary = read_vocabulary(str(out))
    assert len(vocabulary.words) == 300
    printed = capsys.readouterr()
    assert "300 words" in printed.out and "8 documents" in printed.out and "1 not-json" in printed.out
    assert "b.jsonl, byte 0" in printed.err
    assert [path.name for path in out.parent.iterdir()] == ["vocab.txt"]


def test_words_that_are_too_long_are_reported_as_unknown_by_script(corpus, capsys):
    runs = [{"text": f"{'กขค'[i % 3] * 155} is Thai"} for i in range(50)]
    (corpus / "c.jsonl").write_text("".join(json.dumps(run) + "\n" for run in runs))
    assert main(arguments(corpus, "--out", str(corpus / "v"))) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^    Thai +50 .* 1\.00 +100\.000%$", printed, re.MULTILINE)
    assert float(re.search(r"^  \[UNK\] +(.*) % of tokens$", printed, re.MULTILINE)[1]) > 0.2


@pytest.mark.parametrize(
    "flags",
    [
        ["--languages", "th", "en", "--quality-filter", "c4", "gopher", "--fix-text", "--sample", "0.5"],
        ["--text-column", "it's text", "--no-do-lower-case", "--strip-accents", "True", "--max-characters", "900"],
        ["--encoding", "utf-8"],
    ],
    ids=str,
)
def test_the_printed_next_command_can_be_pasted(tmp_path, flags):
    words = ["--input", "a b/*.jsonl", "$HOME.txt", *flags]
    config = parse(BuildVocabConfig, [*words, "--vocab-size", "300", "--out", "my vocab.txt"], "build-vocab")
    printed = shlex.split(_next_command(config))
    assert printed[:2] == ["bertloom", "preprocess"]
    flags = [*printed[2:], "--max-seq-length", "128"]
    next_config = parse(PreprocessConfig, flags, "preprocess")
    next_options, options = flat(next_config), flat(config)
    shared = next_options.keys() & options.keys()
    assert {"input", "languages", "strip_accents"} < shared
    for name in shared - {"out", "num_workers"}:
        assert next_options[name] == options[name]
    assert (next_config.vocab, next_config.out) == ("my vocab.txt", "DATASET")


def test_the_job_refuses_to_overwrite_a_file_without_a_flag(corpus, capsys):
    out = corpus / "vocab.txt"
    out.write_text("mine")
    assert main(arguments(corpus, "--out", str(out))) == 2
    assert "already exists with other content" in capsys.readouterr().err and out.read_text() == "mine"
    assert main(arguments(corpus, "--out", str(out), "--overwrite")) == 0
    before = out.read_bytes()
    assert main(arguments(corpus, "--out", str(out))) == 0  # the same vocabulary again is not another file
    assert out.read_bytes() == before


def test_a_vocabulary_does_not_depend_on_how_the_input_is_cut_into_files(corpus):
    first = build_vocab(BuildVocabConfig(input=(str(corpus / "*.jsonl"),), vocab_size=300, out=str(corpus / "1")))
    joined = (corpus / "a.jsonl").read_text("utf-8") + (corpus / "b.jsonl").read_text("utf-8")
    (corpus / "all.jsonl").write_text(joined, "utf-8")
    second = build_vocab(BuildVocabConfig(input=(str(corpus / "all.jsonl"),), vocab_size=300, out=str(corpus / "2")))
    assert first == second


def test_missing_files_empty_texts_and_impossible_numbers_are_errors(tmp_path, capsys):
    out = ["--out", str(tmp_path / "v")]
    (tmp_path / "empty.jsonl").write_bytes(b"")
    assert main(arguments(tmp_path, *out)) == 2
    assert "no text in 1 file" in capsys.readouterr().err
    assert main(["build-vocab", "--input", str(tmp_path / "*.txt"), "--vocab-size", "300", *out]) == 2
    assert "no file matches" in capsys.readouterr().err
    assert main(["build-vocab", "--input", "x.txt", "--vocab-size", "3", *out]) == 2
    assert "vocab_size=3: expected more than 6" in capsys.readouterr().err
    assert not (tmp_path / "v").exists()


@pytest.mark.parametrize("model", ["bpe", "unigram"])
def test_another_model_gives_a_tokenizer_json_that_keeps_capitals(corpus, capsys, model):
    out = corpus / "tokenizer.json"
    assert main(arguments(corpus, "--model", model, "--vocab-size", "400", "--out", str(out))) == 0
    printed = capsys.readouterr().out
    assert "tokenizer.json: 400 words, sha256" in printed and re.search(r"^    Latin +[\d,]+ ", printed, re.MULTILINE)
    assert "-do-lower-case" not in printed
    read = read_tokenizer(str(out))
    assert len(read.tokens) == 400 and has_capitals(read)
    (corpus / "all.jsonl").write_text("".join((corpus / f"{name}.jsonl").read_text("utf-8") for name in "ba"), "utf-8")
    words = ["build-vocab", "--input", str(corpus / "all.jsonl"), "--vocab-size", "400", "--model", model]
    assert main([*words, "--out", str(corpus / "two.json"), "--num-workers", "2"]) == 0
    assert (corpus / "two.json").read_bytes() == out.read_bytes()
    assert main([*words, "--out", str(corpus / "lower.json"), "--do-lower-case"]) == 0
    assert not has_capitals(read_tokenizer(str(corpus / "lower.json")))


def has_capitals(tokenizer):
    words = [word for word in tokenizer.tokens[5:] if len(word) > 1]  # every byte has a letter
    return any("A" <= letter <= "Z" for word in words for letter in word)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (
            ["--model", "bpe", "--out", "v.txt"],
            "--out v.txt: --model bpe makes a tokenizer.json: give a name that ends so",
        ),
        (["--model", "wordpiece", "--out", "v.json"], "--out v.json: --model wordpiece makes a vocab.txt"),
        (["--model", "bpe", "--vocab-size", "261", "--out", "v.json"], "vocab_size=261: expected more than 261"),
        (
            ["--model", "bpe", "--character-coverage", "1", "--out", "v.json"],
            "--character-coverage is not for --model bpe: byte-level BPE can spell every character; leave it out",
        ),
        (
            ["--model", "unigram", "--min-frequency", "3", "--out", "v.json"],
            "--min-frequency is not for --model unigram",
        ),
    ],
)
def test_flags_that_a_model_cannot_obey_are_refused(corpus, capsys, flags, says):
    assert main(arguments(corpus, *flags)) == 2
    assert says in capsys.readouterr().err


def test_casing_is_kept_on_request(corpus):
    config = BuildVocabConfig(
        input=(str(corpus / "*.jsonl"),), vocab_size=300, out=str(corpus / "v"), do_lower_case=False
    )
    assert any(character.isupper() for word in build_vocab(config)[5:] for character in word)
