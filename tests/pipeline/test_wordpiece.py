import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import BertWordPieceTokenizer

from pipeline.text.wordpiece import WordPiece
from pipeline.vocabulary import SPECIAL_WORDS, Vocabulary, make_tokenizer
from tests.pipeline import twins
from tests.pipeline.small_text import ODD_TEXT, VOCABULARY

CASINGS = [(True, None), (True, False), (False, None), (False, True)]  # do_lower_case, strip_accents
VARIANTS = pytest.mark.parametrize("kernel", CASINGS, indirect=True, ids=["uncased", "accents", "cased", "stripped"])


def make_kernel(do_lower_case: bool, strip_accents: bool | None, vocabulary: Vocabulary = VOCABULARY) -> WordPiece:
    return WordPiece(make_tokenizer(vocabulary, do_lower_case, strip_accents), do_lower_case, len(vocabulary.words))


@pytest.fixture(scope="module")
def kernel(request) -> WordPiece:
    """One kernel for all examples: what it remembers of one text must not change the next."""
    return make_kernel(*request.param)


def ids(kernel: WordPiece, text: str) -> list[int]:
    units, _ = kernel.units(text.encode())
    return kernel.ids_of(units.codes)[0].tolist()


def reference(kernel: WordPiece, text: str) -> list[int]:
    return kernel.tokenizer.encode(text, add_special_tokens=False).ids


@VARIANTS
@settings(max_examples=400)
@given(text=ODD_TEXT)
def test_ids_equal_those_of_the_reference_on_the_whole_text(kernel, text):
    assert ids(kernel, text) == reference(kernel, text)


@VARIANTS
def test_ids_equal_those_of_the_reference_for_every_character_within_a_word(kernel):
    """The whole basic plane, and the most used characters of the others."""
    ranges = (0, 0xD800), (0xE000, 0x11200), (0x1D100, 0x1D200), (0x1F000, 0x20200), (0x2F800, 0x2FA40)
    characters = [chr(point) for first, end in ranges for point in range(first, end)]
    text = " ".join(f"a{character}b" for character in characters)
    if ids(kernel, text) != reference(kernel, text):
        wrong = [c for c in characters if ids(kernel, f"a{c}b") != reference(kernel, f"a{c}b")]
        assert [hex(ord(c)) for c in wrong] == []


@pytest.mark.parametrize("casing", CASINGS)
def test_the_reference_equals_the_usual_bert_tokenizer(casing, tmp_path):
    """`BertWordPieceTokenizer`, with special words read as text."""
    do_lower_case, strip_accents = casing
    (tmp_path / "vocab.txt").write_bytes(VOCABULARY.text)
    known = BertWordPieceTokenizer(str(tmp_path / "vocab.txt"), lowercase=do_lower_case, strip_accents=strip_accents)
    known._tokenizer.encode_special_tokens = True
    kernel = make_kernel(*casing)
    for text in ("The naïve cat's [MASK], unable.", "他说：“走吧。”然后离开了。", "ÜBER\x00über \u200b[SEP]"):
        assert ids(kernel, text) == known.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("kernel", CASINGS[:1], indirect=True)
@given(texts=st.lists(ODD_TEXT, max_size=8), most=st.integers(0, 12))
def test_emptying_the_table_changes_no_ids(kernel, texts, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.text.units.MAX_UNITS", most)
        for text in texts * 2:
            assert ids(kernel, text) == reference(kernel, text)


def test_the_table_is_emptied_when_it_is_too_large(monkeypatch):
    monkeypatch.setattr("pipeline.text.units.MAX_UNITS", 3)
    kernel = make_kernel(True, None)
    assert kernel.units(b"a b c d")[1] == ["a", "b", "c", "d"]
    assert kernel.units(b"e a")[1] == ["e", "a"]
    assert kernel.units(b"a f")[1] == ["f"]
    assert len(kernel.sizes) == 3


@pytest.mark.parametrize("slots, steps", [(1, 32), (3, 1), (18, 0)])
@settings(max_examples=100)
@given(texts=st.lists(ODD_TEXT, min_size=1, max_size=4), word=st.integers(1, 60))
def test_a_small_table_and_a_long_word_change_no_ids(slots, steps, texts, word):
    """Many units have the same slot, and a word is longer than MAX_STEPS."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.text.spans.SLOT_BITS", slots)
        patch.setattr("pipeline.text.units.MAX_STEPS", steps)
        kernel = make_kernel(True, None)
        for text in texts:
            text += " it-" * 3 + "no," * word + "ü" + "-no" * word + "漢" + ".ü" * word
            assert ids(kernel, text) == reference(kernel, text)


def test_a_unit_is_tokenized_once():
    kernel = make_kernel(True, None)
    assert kernel.units(b"the Cat the cat")[1] == ["the", "cat"]
    assert kernel.units(b"cat the")[1] == []


@VARIANTS
@given(text=ODD_TEXT)
def test_units_equal_those_of_their_twin(kernel, text):
    data = text.encode()
    units, _ = kernel.units(data)
    found = [data[s : s + n].decode() for s, n in zip(units.starts.tolist(), units.lengths.tolist())]
    assert found == [unit.text for unit in twins.cut_units(text, kernel.tokenizer)]


@VARIANTS
@given(text=ODD_TEXT)
def test_the_sizes_of_the_units_add_up_and_equal_their_own_encodings(kernel, text):
    units, _ = kernel.units(text.encode())
    all_ids, edges = kernel.ids_of(units.codes)
    assert edges[0] == 0 and edges[-1] == len(all_ids)
    data = text.encode()
    for start, length, size in zip(units.starts.tolist(), units.lengths.tolist(), np.diff(edges).tolist()):
        assert size == len(reference(kernel, data[start : start + length].decode()))


def test_units_equal_the_docstrings_example():
    kernel = make_kernel(True, None)
    data = "It's 3.5, isn't it? café(x) 中文…z".encode()
    units, _ = kernel.units(data)
    found = [data[s : s + n].decode() for s, n in zip(units.starts, units.lengths)]
    assert found == ["It", "'", "s", "3", ".", "5", ",", "isn", "'", "t", "it", "?", "café(x)", "中", "文", "…", "z"]


def test_a_word_in_two_cases_is_one_unit_only_when_case_is_folded():
    assert make_kernel(True, None).units(b"The THE the")[1] == ["the"]
    assert make_kernel(False, None).units(b"The THE the")[1] == ["The", "THE", "the"]


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\x00", "\u0301", "\u200b \ufeff"])
def test_an_empty_text_has_no_ids(text):
    assert ids(make_kernel(True, None), text) == []


def test_units_of_eight_and_nine_bytes_are_distinguished():
    kernel = make_kernel(True, None)
    words = ["abcdefgh", "abcdefghi", "abcdefg", "abcdefgh\x00", "中"]
    assert [ids(kernel, word) for word in words] == [reference(kernel, word) for word in words]


def test_a_large_vocabulary_has_ids_of_four_bytes():
    words = (*SPECIAL_WORDS, *(f"w{i}" for i in range(70_000)))
    kernel = make_kernel(True, None, Vocabulary(words))
    assert ids(kernel, "w69999 w1") == [70_004, 6]
    assert kernel.dtype == np.uint32 and make_kernel(True, None).dtype == np.uint16


def test_a_tokenizer_that_recognizes_special_words_is_refused():
    tokenizer = make_tokenizer(VOCABULARY, True, None)
    tokenizer.encode_special_tokens = False
    with pytest.raises(AssertionError, match="a special token's name in the text would become that token"):
        WordPiece(tokenizer, True, len(VOCABULARY.words))
