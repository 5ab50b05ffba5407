import copy
import json
from functools import cache
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE

from bertloom.tokenizer_files import parse_tokenizer
from bertloom.tokenizer_parts import PATTERNS
from pipeline.text import pretokens
from pipeline.text.pretokens import PreTokens, TextTokens
from tests.bertloom.tokenizer_kinds import CONTENTS, NAMES, charsmap
from tests.pipeline.small_text import ANY_CHARACTER, ODD

Content = dict[str, Any]


def changed(kind: str, **parts: Any) -> Content:
    """The tokenizer.json of a kind with other parts; "model.name" is within the model."""
    content = copy.deepcopy(CONTENTS[kind])
    for name, part in parts.items():
        inner = content["model"] if name in content["model"] else content
        inner[name] = part
    return content


def sequence(kind: str, *parts: Content) -> Content:
    return {"type": "Sequence", kind: list(parts)}


def split(name: str) -> Content:
    return {"type": "Split", "pattern": {"Regex": PATTERNS[name]}, "behavior": "Isolated", "invert": False}


def meta(scheme: str, is_split: bool = True) -> Content:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": is_split}


def with_added(kind: str, *texts: str, **flags: bool) -> Content:
    """The tokenizer.json of a kind with more added tokens, which are found in a text."""
    tokenizer = Tokenizer.from_str(json.dumps(CONTENTS[kind]))
    tokenizer.add_tokens(list(texts))
    content = json.loads(tokenizer.to_str())
    for entry in content["added_tokens"]:
        if entry["content"] in texts:
            entry.update(flags)
    return content


def without_merges_to_spaces(content: Content) -> Content:
    """As SentencePiece trains a BPE: a "▁" is only at the beginning of a word."""
    merges = [merge for merge in content["model"]["merges"] if "▁" not in "".join(merge).lstrip("▁")]
    return content | {"model": content["model"] | {"merges": merges}}


def with_merges_of(*words: str) -> Content:
    """Vocabulary and merges with the bytes of these words, merged from the left but without their first byte."""
    vocabulary, merges = dict(CONTENTS["roberta"]["model"]["vocab"]), []
    for word in words:
        [(letters, _)] = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(word)
        for end in range(3, len(letters)):
            pair = [letters[1 : end - 1], letters[end - 1]]
            if "".join(pair) not in vocabulary:
                vocabulary["".join(pair)] = len(vocabulary)
                merges.append(pair)
    return {"vocab": vocabulary, "merges": merges}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
PREPEND = {"type": "Prepend", "prepend": "▁"}
SPLIT_SPACES = {"type": "WhitespaceSplit"}
LOWER = {"type": "Lowercase"}
SPACES = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}
STRIP = {"type": "Strip", "strip_left": True, "strip_right": True}
ODD_TABLE = {
    "type": "Precompiled",
    "precompiled_charsmap": charsmap(
        {"\u0600": " ", "e\u0301": "é", "…": "...", "\u00a0": " ", "：": ":", "b": " ", "é": ""}
    ),
}
ALL_BYTES = [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]

VARIANTS: dict[str, Content] = {
    **CONTENTS,
    "prefix space": changed("roberta", pre_tokenizer=BYTES | {"add_prefix_space": True, "use_regex": True}),
    "lower case bytes": changed("modernbert", normalizer=LOWER),
    "bytes without a pattern": changed("roberta", pre_tokenizer=BYTES),
    **{
        name: changed("llama3", pre_tokenizer=sequence("pretokenizers", split(name), BYTES), ignore_merges=False)
        for name in ("GPT-2", "Qwen 2", "o200k", "Tekken")
    },
    "DeepSeek": changed(
        "llama3",
        pre_tokenizer=sequence(
            "pretokenizers",
            *map(split, ("DeepSeek 3, digits", "DeepSeek 3, Chinese and Japanese", "DeepSeek 3")),
            BYTES,
        ),
    ),
    "Falcon": changed(
        "llama3",
        pre_tokenizer=sequence(
            "pretokenizers",
            {"type": "Punctuation", "behavior": "Contiguous"},
            BYTES | {"use_regex": True},
            {"type": "Digits", "individual_digits": False},
            split("Falcon"),
        ),
    ),
    "Gemma": without_merges_to_spaces(CONTENTS["gemma"]),
    "Llama 2": without_merges_to_spaces(
        changed("gemma", normalizer=sequence("normalizers", PREPEND, REPLACE), pre_tokenizer=None)
    ),
    "no bytes": without_merges_to_spaces(changed("gemma", byte_fallback=False, fuse_unk=False)),
    "no unknown": without_merges_to_spaces(changed("gemma", byte_fallback=False, unk_token=None)),
    **{
        f"metaspace {scheme}{' whole' * (not is_split)}": without_merges_to_spaces(
            changed("gemma", normalizer=None, pre_tokenizer=meta(scheme, is_split))
        )
        for scheme in ("always", "first", "never")
        for is_split in (True, False)
    },
    **{
        f"unigram {scheme}": changed("xlm_roberta", pre_tokenizer=sequence("pretokenizers", SPLIT_SPACES, meta(scheme)))
        for scheme in ("first", "never")
    },
    "unigram bytes": changed(
        "xlm_roberta", byte_fallback=True, vocab=CONTENTS["xlm_roberta"]["model"]["vocab"] + ALL_BYTES
    ),
    "unigram signs": changed(
        "xlm_roberta",
        vocab=CONTENTS["xlm_roberta"]["model"]["vocab"] + [[word, -9.5] for word in (",", ")", ".", "a.", "é,", ",)")],
    ),
    "unigram, odd table": changed("xlm_roberta", normalizer=sequence("normalizers", ODD_TABLE, SPACES)),
    "unigram, table and accents": changed(
        "deberta", normalizer=sequence("normalizers", STRIP, ODD_TABLE, {"type": "StripAccents"}, SPACES)
    ),
    "unigram, whole": changed("deberta", pre_tokenizer=meta("always", False)),
    "words": changed("mpnet", normalizer={"type": "NFKC"}, pre_tokenizer={"type": "Whitespace"}),
    "signs and digits": changed(
        "mpnet",
        normalizer=sequence("normalizers", {"type": "NFD"}, LOWER, {"type": "StripAccents"}),
        pre_tokenizer=sequence(
            "pretokenizers",
            SPLIT_SPACES,
            {"type": "Punctuation", "behavior": "Isolated"},
            {"type": "Digits", "individual_digits": True},
        ),
    ),
    "scripts": changed("roberta", pre_tokenizer=sequence("pretokenizers", {"type": "UnicodeScripts"}, BYTES)),
    "Chinese and metaspace": changed("deberta", normalizer=CONTENTS["bert"]["normalizer"]),
    "added to Gemma": without_merges_to_spaces(with_added("gemma", "cat", "▁▁", "x▁y", ", a")),
    "BERT and spaces": changed(
        "mpnet", normalizer=sequence("normalizers", CONTENTS["bert"]["normalizer"], SPACES | {"content": " "})
    ),
    "no ideograph is merged": changed("roberta", merges=[]),
    "parts of ideographs are merged": changed("roberta", **with_merges_of("学习", "大学习", "京大")),
    **{
        f"added to {kind} {name}": with_added(kind, "cat", "the ca", "t, a", " sat", ">x", "中", "É", **{name: True})
        for kind in ("modernbert", "xlm_roberta", "albert", "gemma", "mpnet")
        for name in ("lstrip", "rstrip", "single_word", "normalized")
    },
    "added to prefix space": changed(
        "roberta",
        pre_tokenizer=BYTES | {"add_prefix_space": True, "use_regex": True},
        added_tokens=with_added("roberta", ",", "cat.")["added_tokens"],
    ),
}
REMOVING = ("unigram, odd table", "unigram, table and accents")
"""Kinds with a Precompiled that removes characters: the library's offsets after them are wrong, as far as the next cut."""
KINDS = pytest.mark.parametrize("kind", VARIANTS)

PIECES = st.sampled_from(
    "the cat sat. mat, dog's don't 1234 12a naïve café <mask> [MASK] <s> |||IP_ADDRESS||| [unused1] <unused0> `` '' \u0600a"
    " \u0600\u00e9 ▁ ▁a ¡Hola! 我们 在北京大学学习， 语言模型。 “北京” 学 习 大学们"
    " 中国字 北 ﬁ Ⅷ É \u0301 e\u0301 \u0915\u094d\u0937 \u0915\u093f b".split(" ")
)
GAPS = st.sampled_from(["", "", " ", " ", " ", "  ", "    ", "\n", "\t", "\u00a0", "\u3000"])
TEXT = st.lists(PIECES | ODD | ANY_CHARACTER | GAPS, max_size=24).map("".join)


@cache
def reference(kind: str) -> Tokenizer:
    content = VARIANTS[kind]
    names = NAMES["gemma"] if "<bos>" in content["model"]["vocab"] else None
    tokenizer = parse_tokenizer(json.dumps(content).encode(), kind, names).load()
    tokenizer.post_processor = None  # it changes the offsets
    return tokenizer


@cache
def kernel_of(kind: str) -> PreTokens:
    """One kernel for all examples: what it remembers of one text must not change the next."""
    return PreTokens(reference(kind), reference(kind).get_vocab_size())


def rows(tokens: TextTokens) -> list[list[tuple[int, int, bool]]]:
    """(id, byte where it begins, whether it continues a word) of each token of each text."""
    found = iter(zip(tokens.ids.tolist(), tokens.starts.tolist(), tokens.inside.tolist()))
    texts = [list(islice(found, count)) for count in tokens.counts.tolist()]
    assert next(found, None) is None
    return texts


def twin(tokenizer: Tokenizer, text: str) -> list[tuple[int, int, bool]]:
    """What `rows` has of a text, from its encoding as a whole."""
    text = text.replace("\n", " ")
    encoding = tokenizer.encode(text, add_special_tokens=False)
    found, words = [], encoding.word_ids
    for i, (begin, _) in enumerate(encoding.offsets):
        end = max(end for (_, end), word in zip(encoding.offsets, words) if word == words[i])
        at = next((at for at in range(begin, end) if not text[at].isspace()), begin)
        inside = i > 0 and words[i - 1] == words[i] and not text[begin : begin + 1].isspace()
        found.append((encoding.ids[i], len(text[:at].encode()), inside))
    return found


def check(kind: str, texts: list[str]) -> None:
    found = rows(kernel_of(kind)([text.encode() for text in texts]))
    expected = [twin(reference(kind), text) for text in texts]
    if kind in REMOVING:
        assert [[row[0] for row in text] for text in found] == [[row[0] for row in text] for text in expected]
    else:
        assert found == expected


@KINDS
@settings(max_examples=20)
@given(texts=st.lists(TEXT, min_size=1, max_size=3))
def test_tokens_equal_those_of_the_reference_on_whole_texts(kind, texts):
    check(kind, texts)


@pytest.mark.slow
@KINDS
@settings(max_examples=300)
@given(texts=st.lists(TEXT, min_size=1, max_size=3))
def test_tokens_equal_those_of_the_reference_on_many_texts(kind, texts):
    check(kind, texts)


def test_characters_that_a_table_removes_do_not_move_the_tokens_after_the_next_cut():
    kernel = kernel_of("unigram, odd table")
    text = "é" * 9 + "the cat the mat"
    words = [i for i, row in enumerate(twin(reference("unigram, odd table"), "the cat the mat")) if not row[2]]
    [found] = rows(kernel([text.encode()]))
    assert [found[i][1] for i in words][1:] == [len(text[:at].encode()) for at in (13, 17, 21)]


@settings(max_examples=100)
@given(texts=st.lists(TEXT, max_size=6), most=st.integers(0, 20), longest=st.integers(0, 12), size=st.integers(1, 40))
def test_emptying_the_table_and_other_limits_change_no_tokens(texts, most, longest, size):
    kernel, block = kernel_of("roberta"), [text.encode() for text in texts]
    expected = rows(kernel(block))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretokens, "MAX_PIECES", most)
        patch.setattr(pretokens, "MAX_PIECE_BYTES", longest)
        patch.setattr(pretokens, "TEXT_BYTES", size)
        patch.setattr(pretokens, "BATCH_BYTES", 3 * size)
        patch.setattr(pretokens, "MANY_TOKENS", size // 4)
        assert rows(kernel(block)) == expected
        assert [row for text in block for row in rows(kernel([text]))] == expected


def test_an_added_token_may_begin_with_the_space_that_the_normalizer_puts_after_an_ideograph():
    """What is remembered of "sat." after one ideograph must not decide what it is after another one."""
    kind = "added to mpnet normalized"
    for texts in (["学sat.", "中文sat."], ["文sat.", "文 sat."], ["文 sat.", "文sat.", "sat."]):
        kernel = PreTokens(reference(kind), reference(kind).get_vocab_size())
        for text in texts:
            assert rows(kernel([text.encode()])) == [twin(reference(kind), text)], texts


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
AFTER_SPACES = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}


@pytest.mark.parametrize("pre_tokenizer", [BYTE_LEVEL, AFTER_SPACES])
def test_strange_pre_tokenizers_of_a_model_with_spaces_as_letters_have_the_ids_of_the_library(pre_tokenizer):
    content = copy.deepcopy(CONTENTS["gemma"]) | {"pre_tokenizer": pre_tokenizer}
    tokenizer = parse_tokenizer(json.dumps(content).encode(), "gemma", NAMES["gemma"])
    texts = ["the cat sat on the mat", "  北京 and the ▁ dog ", "", "12345's é"]
    found = PreTokens(tokenizer.load(), len(tokenizer.tokens))([text.encode() for text in texts])
    expected = [tokenizer.load().encode(text, add_special_tokens=False).ids for text in texts]
    assert found.ids.tolist() == sum(expected, [])


def test_a_piece_is_encoded_once():
    kernel = PreTokens(reference("roberta"), 400)
    for _ in range(2):
        kernel([b"the cat, the cat", b"the cat"])
        assert len(kernel.sizes) == 4  # "the" at the beginning, " cat", ",", " the"


def test_only_some_tokenizers_have_no_cuts():
    """Whether the kind "gemma" has some depends on its training, in which ties are broken by chance."""
    whole = [kind for kind in VARIANTS if kernel_of(kind).note and "gemma" not in kind]
    assert whole == ["no unknown", "unigram, whole", "scripts"]


def test_a_text_is_cut_between_ideographs_that_are_never_merged():
    cuts = kernel_of("parts of ideographs are merged").cuts
    text = "\n大学习，习学京大 1京学"
    starts, within = cuts(text.encode())
    pieces = [text.encode()[a:b].decode() for a, b in pairwise([*starts.tolist(), len(text.encode())])]
    assert pieces == ["\n大学习", "，", "习", "学京大", " 1", "京学"]  # a merge in 学习 has the first byte of 京
    assert within.tolist() == [False, False, False, True, False, False]


@pytest.mark.parametrize(
    "kind, pieces",
    [
        ("roberta", ["\nThe", " cat", ",", " don't", " (", "sit", ")", "  12", "a", ".", " "]),
        ("llama3", ["\nThe", " cat", ",", " don't", " (sit", ")", "  12", "a", ".", " "]),
        ("xlm_roberta", ["\nThe", " cat,", " don't", " (sit)", "  12a.", " "]),
        ("unigram signs", ["\nThe", " cat", ",", " don't", " (sit", ")", "  12a.", " "]),  # its vocabulary has "a."
    ],
)
def test_texts_are_cut_where_the_tokenizer_always_cuts(kind, pieces):
    block = b"\nThe cat, don't (sit)  12a. "
    starts, _ = kernel_of(kind).cuts(block)
    assert [block[a:b].decode() for a, b in pairwise([*starts.tolist(), len(block)])] == pieces


def byte_level(add_prefix_space: bool = False) -> Tokenizer:
    letters = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("Ġ", "a"), ("a", "b")]
    tokenizer = Tokenizer(BPE(letters | {a + b: 256 + i for i, (a, b) in enumerate(merges)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    return tokenizer


def found(tokenizer: Tokenizer, *texts: str) -> list[tuple[str, int, bool]]:
    """(token, byte where it begins, whether it continues a word) of each token."""
    tokens = PreTokens(tokenizer, tokenizer.get_vocab_size())([text.encode() for text in texts])
    return [(tokenizer.id_to_token(number), *place) for row in rows(tokens) for number, *place in row]


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
