import hashlib
import json
import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import BertWordPieceTokenizer, Tokenizer

from jobs.build_vocab import BuildVocabConfig, _next_command, build_vocab
from jobs.cli import main
from jobs.preprocess import PreprocessConfig
from jobs.support.config import parse
from pipeline.options import flat
from pipeline.stages.word_counts import count_words
from pipeline.vocabulary import (
    SPECIAL_WORDS,
    Vocabulary,
    check_casing,
    make_tokenizer,
    measure_coverage,
    parse_vocabulary,
    read_vocabulary,
    tokenizer_json,
    train_vocabulary,
)

SPECIAL = "\n".join(SPECIAL_WORDS)
SMALL = Vocabulary(
    (*SPECIAL_WORDS, "[unused0]", "the", "un", "##able", "##s", "cat", "中", "文", "é", "e", "##e", "[", "]", "mask")
)
SAMPLE = Path(__file__).parent.parent.parent / "jobs" / "sample"


# ---- reading


def test_the_id_of_a_word_is_its_line_number(tmp_path):
    (tmp_path / "v.txt").write_text(f"{SPECIAL}\nthe\n##s\n")
    vocabulary = read_vocabulary(str(tmp_path / "v.txt"))
    assert vocabulary.words == (*SPECIAL_WORDS, "the", "##s")
    assert (vocabulary.pad, vocabulary.unk, vocabulary.cls, vocabulary.sep, vocabulary.mask) == (0, 1, 2, 3, 4)
    assert vocabulary.ids["##s"] == 6 and vocabulary.notes == ()


def test_special_words_may_be_in_any_line():
    vocabulary = parse_vocabulary(b"a\n[MASK]\n[SEP]\n[CLS]\n[UNK]\n[PAD]\n", "v")
    assert (vocabulary.pad, vocabulary.mask) == (5, 1)
    assert vocabulary.ordinary.tolist() == [0]


def test_line_ends_do_not_change_the_digest_and_crlf_gives_a_note():
    lf = parse_vocabulary(f"{SPECIAL}\nthe\n".encode(), "v.txt")
    crlf = parse_vocabulary(f"{SPECIAL}\nthe\n".replace("\n", "\r\n").encode(), "v.txt")
    without_end = parse_vocabulary(f"{SPECIAL}\nthe".encode(), "v.txt")
    assert lf.words == crlf.words == without_end.words
    assert lf.sha256 == crlf.sha256 == without_end.sha256 == hashlib.sha256(f"{SPECIAL}\nthe\n".encode()).hexdigest()
    assert crlf.notes == ("v.txt: 6 lines end in CRLF, which was read as LF",)
    assert lf.notes == without_end.notes == ()


def test_a_byte_order_mark_and_empty_lines_at_the_end_are_ignored_with_a_note():
    vocabulary = parse_vocabulary(f"\ufeff{SPECIAL}\nthe\n\n\n".encode(), "v.txt")
    assert vocabulary.words == (*SPECIAL_WORDS, "the")
    assert len(vocabulary.notes) == 2 and "2 empty lines at the end" in vocabulary.notes[1]


@given(st.sets(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), min_size=1)))
def test_only_a_line_feed_ends_a_word(words):
    """Real vocabularies contain U+2028 and U+0085, at which `str.splitlines` splits."""
    words = [*SPECIAL_WORDS, *sorted(words - set(SPECIAL_WORDS)), "\u2028", "##\x85"]
    words = list(dict.fromkeys(words))
    assert parse_vocabulary("\n".join(words).encode(), "v").words == tuple(words)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (f"{SPECIAL}\nthe\ncat\nthe\n", r"v.txt: the word 'the' is on line 6 and again on line 8; .*\[unused7\]"),
        (f"{SPECIAL}\nthe\r\nthe\r\n", "the word 'the' is on line 6 and again on line 7"),
        (f"{SPECIAL}\n\nthe\ncat\n", r"v.txt: line 6 is empty; .*\[unused5\]"),
        (f"{SPECIAL}\n", "v.txt: 5 words; expected one word per line, at least 6"),
        ("", "v.txt: 0 words"),
        ("a\nb\nc\nd\ne\n[PAD]\n[UNK]\n[SEP]\n", r"v.txt: \[CLS\] \[MASK\] missing; BERT needs"),
        ("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[mask]\na\n", r"\[MASK\] missing \(line 5 has '\[mask\]'\)"),
        ("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK] \na\n", r"\[MASK\] missing \(line 5 has '\[MASK\] '\)"),
        (f"{SPECIAL}\nthe\ncaf".encode() + b"\xe9\n", "v.txt: line 7: not UTF-8"),
    ],
)
def test_a_faulty_vocabulary_is_refused_with_its_line_and_a_remedy(data, says):
    with pytest.raises(ValueError, match=says):
        parse_vocabulary(data if isinstance(data, bytes) else data.encode(), "v.txt")


def test_a_missing_file_and_a_folder_have_different_errors(tmp_path):
    with pytest.raises(ValueError, match="none.txt: No such file or directory; make a vocabulary with"):
        read_vocabulary(str(tmp_path / "none.txt"))
    with pytest.raises(ValueError, match="is a folder; expected a vocabulary file"):
        read_vocabulary(str(tmp_path))


def test_continuation_and_ordinary_words_are_known_by_id():
    assert [SMALL.words[i] for i in np.flatnonzero(SMALL.continuation)] == ["##able", "##s", "##e"]
    assert SMALL.ordinary.dtype == np.uint16
    assert [SMALL.words[i] for i in SMALL.ordinary] == list(SMALL.words[6:])
    large = Vocabulary((*SPECIAL_WORDS, "##", *map(str, range(65_530))))
    assert large.ordinary.dtype == np.uint32 and not large.continuation.any()


def test_a_vocabulary_can_be_pickled():
    _ = SMALL.ids, SMALL.ordinary
    copy = pickle.loads(pickle.dumps(SMALL))
    assert copy == SMALL and copy.sha256 == SMALL.sha256 and copy.ordinary.tolist() == SMALL.ordinary.tolist()


# ---- the tokenizer

awkward = st.text() | st.lists(
    st.sampled_from([*SMALL.words, "unables", "THE", "É", "\x00", "\u200d", "\x85", "，", " ", "\n", "𠀀", "x" * 101])
).map("".join)


@given(awkward, st.booleans(), st.sampled_from([None, True, False]))
def test_the_tokenizer_is_bert_word_piece_with_special_tokens_as_text(text, do_lower_case, strip_accents):
    reference = BertWordPieceTokenizer(SMALL.ids, lowercase=do_lower_case, strip_accents=strip_accents)
    reference._tokenizer.encode_special_tokens = True
    ids = make_tokenizer(SMALL, do_lower_case, strip_accents).encode(text, add_special_tokens=False).ids
    assert ids == reference.encode(text, add_special_tokens=False).ids


def test_a_special_word_in_the_text_is_text():
    tokens = make_tokenizer(SMALL, do_lower_case=True, strip_accents=None).encode("[MASK]").tokens
    assert tokens == ["[", "mask", "]"]


def test_tokenizer_json_opens_with_tokenizers_and_marks_the_segments(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(tokenizer_json(SMALL, do_lower_case=True, strip_accents=None))
    encoding = Tokenizer.from_file(str(path)).encode("The cats.", "中文")
    assert encoding.tokens == ["[CLS]", "the", "cat", "##s", "[UNK]", "[SEP]", "中", "文", "[SEP]"]
    assert encoding.type_ids == [0, 0, 0, 0, 0, 0, 1, 1, 1]


def test_tokenizer_json_opens_with_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_json(SMALL, do_lower_case=False, strip_accents=False))
    tokenizer = transformers.BertTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert tokenizer.mask_token_id == SMALL.mask and tokenizer.pad_token_id == SMALL.pad
    assert tokenizer("é The [MASK]")["input_ids"] == [SMALL.cls, SMALL.ids["é"], SMALL.unk, SMALL.mask, SMALL.sep]


def test_tokenizer_json_is_the_same_bytes_each_time():
    assert tokenizer_json(SMALL, True, None) == tokenizer_json(SMALL, True, None)


# ---- training


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
        train_vocabulary(counts, vocab_size=6)


def test_training_on_a_large_corpus_keeps_the_proportions(monkeypatch):
    counts = {"ab": 4_000_000, "cd": 2_000_000, "ef": 1}
    monkeypatch.setattr("pipeline.vocabulary.MAX_TRAINING_WORDS", 600)
    assert [word for word in train_vocabulary(counts, 100, character_coverage=1.0) if len(word) == 2] == ["ab", "cd"]


def test_training_gives_the_same_words_in_every_process():
    """`tokenizers` alone does not: it numbers characters in the order of a hash table."""
    code = (
        "import sys, hashlib, pathlib; from pipeline.vocabulary import train_vocabulary;"
        "from pipeline.stages.word_counts import count_words;"
        "counts = count_words([pathlib.Path(sys.argv[1]).read_bytes()[:100_000]], True, None);"
        "print(hashlib.sha256(repr(train_vocabulary(counts, 2000)).encode()).hexdigest())"
    )
    command = [sys.executable, "-c", code, str(SAMPLE / "en.jsonl")]
    runs = {subprocess.run(command, cwd=SAMPLE.parent.parent, check=True, capture_output=True).stdout for _ in range(3)}
    assert len(runs) == 1


def test_coverage_equals_a_count_of_the_tokenizers_output():
    text = (SAMPLE / "zh.txt").read_text("utf-8")[:70_000]
    counts = count_words([text.encode()], True, None)
    vocabulary = Vocabulary(tuple(train_vocabulary(counts, 2500)))
    scripts = measure_coverage(vocabulary, counts)
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
    scripts = measure_coverage(vocabulary, {"the": 5, "cat": 2, "中": 3, "文": 1, "です": 2, "!": 1, "кот": 1, "42": 1})
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
    assert first.words == second.words


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


def test_casing_is_kept_on_request(corpus):
    config = BuildVocabConfig(
        input=(str(corpus / "*.jsonl"),), vocab_size=300, out=str(corpus / "v"), do_lower_case=False
    )
    assert any(character.isupper() for word in build_vocab(config).words[5:] for character in word)


def test_the_files_of_the_data_set_are_plain_text_and_json():
    assert SMALL.text.decode().split("\n")[:5] == list(SPECIAL_WORDS)
    assert json.loads(tokenizer_json(SMALL, True, None))["model"]["type"] == "WordPiece"


CASED = [*SPECIAL_WORDS, *"abcdefghij", *"ABCDEFGHIJ", "é", "##É"]


@pytest.mark.parametrize(
    "flags, said",
    [
        (
            (True, None),
            r"v.txt: 11 of 22 words can never occur, such as I, J, ##É, because the text is lower-cased: give --no",
        ),
        (
            (False, True),
            r"2 of 22 words can never occur, .*because accents are removed from the text: give --strip-accents F",
        ),
        ((False, None), None),
        ((False, False), None),
    ],
)
def test_a_vocabulary_whose_words_cannot_occur_is_refused_with_the_flag(flags, said):
    vocabulary = parse_vocabulary("\n".join(CASED).encode(), "v.txt")
    if said is None:
        check_casing(vocabulary, *flags, "v.txt")
        return
    with pytest.raises(ValueError, match=said):
        check_casing(vocabulary, *flags, "v.txt")


def test_a_few_odd_words_are_accepted_as_in_the_vocabulary_of_chinese_bert():
    words = [*SPECIAL_WORDS, "<S>", "<T>", *(f"w{i}" for i in range(300))]
    check_casing(parse_vocabulary("\n".join(words).encode(), "v.txt"), True, None, "v.txt")
