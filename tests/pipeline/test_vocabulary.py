import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import BertWordPieceTokenizer, Tokenizer

from pipeline.vocabulary import (
    SPECIAL_WORDS,
    Vocabulary,
    check_casing,
    make_tokenizer,
    parse_vocabulary,
    tokenizer_json,
)
from pipeline.vocabulary_files import read_vocabulary

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
    with pytest.raises(ValueError, match="has neither tokenizer.json nor vocab.txt"):
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
