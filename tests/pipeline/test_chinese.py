"""Where a segmenter sees Chinese words: the bits, their way through token parts, and whole-word masks that follow them."""

import sys

import numpy as np
import pytest

from bertloom.members import read_shard
from bertloom.shards import ShardName
from pipeline.examples.configuration import ExamplesConfig
from pipeline.examples.shards import write_shard
from pipeline.job import JobConfig
from pipeline.places import Places
from pipeline.stages.tokenization import TokenizeGroup
from pipeline.text.chinese import inside_words, load_segmenter
from pipeline.text.records import Document
from pipeline.text.wordpiece import WordPiece
from pipeline.tokenizer import DocumentTokenizer, TokenizeConfig
from pipeline.tokens import read_range
from pipeline.vocabulary import SPECIAL_WORDS, Vocabulary, make_tokenizer
from pipeline.vocabulary_files import write_copy
from tests.pipeline.hand_made_parts import part_of_file

TEXT = "操作系统是计算机的核心。我们学习人工智能。他在北京大学工作，研究自然语言处理。"
MORE = "今天的天气很好，我们去公园散步。图书馆在学校的北边。"
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
VOCABULARY = Vocabulary(
    tuple(
        dict.fromkeys(
            [
                *SPECIAL_WORDS,
                *LETTERS,
                *(f"##{letter}" for letter in LETTERS),
                *".,!?“”，。！？《》",
                *TEXT,
                *MORE,
                "linux",
                "win",
                "##dows",
                "the",
                "cat",
            ]
        )
    )
)


def make_document_tokenizer(with_words: bool = True) -> DocumentTokenizer:
    wordpiece = WordPiece(make_tokenizer(VOCABULARY, True, None), True, len(VOCABULARY.words))
    return DocumentTokenizer(wordpiece, load_segmenter() if with_words else None)


def marked(text: str) -> str:
    """The tokens of a text; one that continues a Chinese word has no space before it."""
    block = make_document_tokenizer()([Document(text.encode(), 0)])
    tokens = [VOCABULARY.words[i] for i in block.ids]
    return "".join(token if inside else f" {token}" for token, inside in zip(tokens, block.inside_words)).strip()


@pytest.mark.parametrize(
    "text, expected",
    [
        ("操作系统是核心", "操作系统 是 核心"),
        ("我们学习人工智能。", "我们 学习 人工智能 。"),
        ("他在北京大学工作，研究自然语言处理。", "他 在 北京大学 工作 ， 研究 自然语言 处理 。"),
        ("操作系统《linux》", "操作系统 《 linux 》"),
        ("the cat学习linux操作系统!", "the cat 学习 linux 操作系统 !"),
        ("操作 系统", "操作 系统"),
        ("操作\n系统", "操作 系统"),
        ("windows 操作系统", "win ##dows 操作系统"),
        ("the cat.", "the cat ."),
        ("操作系\u200b统", "操作 系 统"),
        ("", ""),
    ],
)
def test_a_character_that_continues_a_word_is_marked(text, expected):
    assert marked(text) == expected


def test_pieces_of_other_words_are_not_marked():
    block = make_document_tokenizer()([Document("Windows and naïve 한국어 ひらがな 操作".encode(), 0)])
    assert np.flatnonzero(block.inside_words).tolist() == [len(block.ids) - 1]


def test_without_the_option_there_are_no_marks():
    assert make_document_tokenizer(False)([Document(TEXT.encode(), 0)]).inside_words is None


def test_the_marks_of_a_document_do_not_depend_on_its_neighbours():
    tokenizer = make_document_tokenizer()
    texts = [TEXT, "the cat", MORE, "操作", "系统", "学习\n人工", "智能", "\u200b", TEXT[:3]]
    alone = [tokenizer([Document(text.encode(), 0)]).inside_words.tolist() for text in texts]
    for order in (range(9), reversed(range(9))):
        numbers = list(order)
        block = tokenizer([Document(texts[i].encode(), 0) for i in numbers])
        assert block.inside_words.tolist() == [mark for i in numbers for mark in alone[i]]


def test_a_segmenter_that_loses_text_is_an_error():
    units, _ = make_document_tokenizer().block_tokenizer.units("操作系统\n".encode())
    with pytest.raises(AssertionError, match="lost text"):
        inside_words("操作系统\n".encode(), units, lambda text: ["操作系"])


def test_marks_are_written_to_a_part_and_read_by_range(tmp_path):
    tokenizer = make_document_tokenizer()
    texts = [TEXT, MORE, "the cat", "操作系统", "", "人工智能。" * 30] + [f"学习{i}操作系统" for i in range(40)]
    blocks = [tokenizer([Document(text.encode(), 9 * i)]) for i, text in enumerate(texts)]
    expected = {int(b.documents["id"][0]): b.inside_words.tolist() for b in blocks if len(b.ids)}
    path = str(tmp_path / "p.part")
    part = part_of_file(path, "s.txt", blocks)
    found = {}
    for low, high in ((0, 1 << 62), (1 << 62, 3 << 62), (3 << 62, 1 << 64)):
        block = read_range(path, part, low, high)
        assert len(block.inside_words) == len(block.ids)
        ends = np.cumsum(block.documents["num_tokens"]).tolist()
        for row, start, end in zip(block.documents, [0, *ends], ends):
            found[int(row["id"])] = block.inside_words[start:end].tolist()
    assert found == expected and len(found) == len(texts) - 1


def test_whole_word_masks_cover_chinese_words(tmp_path):
    """Without the option every character is a word."""
    words = ["操作系统", "计算机", "核心", "学习", "人工智能", "北京大学", "工作", "研究", "自然语言", "处理"]
    parted = {}
    for with_words in (True, False):
        tokens = make_document_tokenizer(with_words)([Document(TEXT.encode(), 0)])
        config = ExamplesConfig(max_seq_length=(64,), do_whole_word_mask=True, pairs="none", short_seq_prob=0.0)
        sentences = config.sentences(tokens, VOCABULARY.kinds, 64)
        parted[with_words] = 0
        for copy in range(40):
            pairs, _ = config.make_pairs(sentences, 64, copy)
            name = ShardName(split="train", max_seq_length=64, copy=copy, number=0)
            row = write_shard(str(tmp_path), name, sentences, pairs, 1, config.masking(64, VOCABULARY))
            (example,) = read_shard(str(tmp_path / row["path"])).to_pylist()
            text = [VOCABULARY.words[i] for i in example["input_ids"]]
            for at, truth in zip(example["masked_lm_positions"], example["masked_lm_ids"]):
                text[at] = VOCABULARY.words[truth]
            plain = "".join(text[1:-1])
            assert plain == TEXT
            for word in words:
                at = plain.index(word) + 1
                hit = [i in example["masked_lm_positions"] for i in range(at, at + len(word))]
                parted[with_words] += any(hit) and not all(hit)
    assert parted[True] == 0 and parted[False] > 100


def test_the_error_for_a_missing_library_names_the_extra_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "rjieba", None)
    places = Places(str(tmp_path), str(tmp_path))
    write_copy(places.vocabulary(VOCABULARY.sha256), VOCABULARY, TokenizeConfig().casing)

    def setup(config):
        TokenizeGroup(JobConfig(config, ExamplesConfig(), VOCABULARY.sha256), places, 1000).setup()

    with pytest.raises(ValueError, match='--chinese-words needs the extra "chinese"'):
        setup(TokenizeConfig(chinese_words=True))
    setup(TokenizeConfig())
