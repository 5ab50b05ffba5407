import numpy as np
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE

from pipeline.text.pretokens import PreTokens


def byte_level(add_prefix_space: bool = False) -> Tokenizer:
    letters = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("Ġ", "a"), ("a", "b")]
    tokenizer = Tokenizer(BPE(letters | {a + b: 256 + i for i, (a, b) in enumerate(merges)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    return tokenizer


def found(tokenizer: Tokenizer, *texts: str) -> list[tuple[str, int, bool]]:
    """(token, byte where it begins, whether it continues a word) of each token."""
    tokens = PreTokens(tokenizer, tokenizer.get_vocab_size())([text.encode() for text in texts])
    assert tokens.counts.sum() == len(tokens.ids)
    return list(zip(map(tokenizer.id_to_token, tokens.ids), tokens.starts.tolist(), tokens.inside.tolist()))


def test_a_space_before_a_word_counts_with_the_word():
    assert found(byte_level(), "ab a  x") == [
        ("ab", 0, False),
        ("Ġa", 3, False),
        ("Ġ", 4, False),  # a pre-token of its own
        ("Ġ", 6, False),
        ("x", 6, True),
    ]


def test_tokens_of_one_character_begin_with_it_and_each_text_begins_at_0():
    assert found(byte_level(), "é,", "", "\na") == [
        ("Ã", 0, False),
        ("©", 0, True),
        (",", 2, False),
        ("Ġa", 1, False),
    ]


def test_no_texts_have_no_tokens():
    tokens = PreTokens(byte_level(), 70_000)([])
    assert len(tokens.ids) == len(tokens.counts) == 0
    assert tokens.ids.dtype == np.uint32
