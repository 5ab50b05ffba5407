import copy
import json
import os
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from bertloom.tokenizer_files import parse_tokenizer, read_tokenizer
from tests.bertloom.tokenizer_kinds import CONTENTS, NAMES, charsmap

READ = {kind: parse_tokenizer(json.dumps(CONTENTS[kind]).encode(), kind, NAMES.get(kind)) for kind in CONTENTS}
LOADED = {kind: tokenizer.load() for kind, tokenizer in READ.items()}
KINDS = pytest.mark.parametrize("kind", READ)
PIECES = st.sampled_from(
    ["the cat", " ", "  ", "\n", "ﬁ", "é", "北京", "'s", "12345", "\u0301", "<", "unused0", "[unused1]"]
)


def changed(kind, *path_and_value) -> bytes:
    """The tokenizer.json of a kind with another value at a path."""
    content = copy.deepcopy(CONTENTS[kind])
    *path, last, value = path_and_value
    inner = content
    for name in path:
        inner = inner[name]
    inner[last] = value
    return json.dumps(content).encode()


def refusal(content: bytes, kind="roberta", names=None) -> str:
    with pytest.raises(ValueError) as caught:
        parse_tokenizer(content, "here.json", names or NAMES.get(kind))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "cls", "sep", "mask", "pad", "unk"),
    [
        ("bert", "[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]"),
        ("mpnet", "<s>", "</s>", "<mask>", "<pad>", "[UNK]"),
        ("roberta", "<s>", "</s>", "<mask>", "<pad>", "<unk>"),
        ("modernbert", "[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]"),
        ("llama3", "<|begin_of_text|>", "<|end_of_text|>", "<|mask|>", "<|pad|>", None),
        ("gemma", "<bos>", "<eos>", "<mask>", "<pad>", "<unk>"),
        ("xlm_roberta", "<s>", "</s>", "<mask>", "<pad>", "<unk>"),
        ("albert", "[CLS]", "[SEP]", "[MASK]", "<pad>", "<unk>"),
        ("deberta", "[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]"),
    ],
)
def test_the_special_tokens_of_a_published_tokenizer_are_read(kind, cls, sep, mask, pad, unk):
    special, ids = READ[kind].special, READ[kind].ids
    assert (special.cls, special.sep, special.mask, special.pad) == tuple(ids[name] for name in (cls, sep, mask, pad))
    assert special.unk == (None if unk is None else ids[unk])
    assert special.names.get("unk_token") == unk
    assert READ[kind].is_bert == (kind == "bert")


@KINDS
@given(texts=st.lists(PIECES | st.text(max_size=4), max_size=8))
def test_texts_without_names_of_special_tokens_have_the_ids_of_the_library(kind, texts):
    theirs = Tokenizer.from_str(json.dumps(CONTENTS[kind]))
    theirs.encode_special_tokens = True
    text = "".join(texts)
    assert LOADED[kind].encode(text, add_special_tokens=False).ids == theirs.encode(text, add_special_tokens=False).ids


@KINDS
@given(data=st.data())
def test_the_name_of_a_special_token_in_a_text_is_text(kind, data):
    tokenizer = READ[kind]
    special = [entry["content"] for entry in tokenizer.content["added_tokens"] if entry["special"]]
    names = st.sampled_from([name for name in special if name != tokenizer.special.names.get("unk_token")])
    text = "".join(data.draw(st.lists(names | PIECES, max_size=8)))
    unknown = {tokenizer.special.unk}
    read = {entry["id"] for entry in tokenizer.content["added_tokens"] if entry["special"]} - unknown
    assert not read.intersection(LOADED[kind].encode(text, add_special_tokens=False).ids)


@KINDS
def test_written_files_are_read_as_the_same_tokenizer_and_written_the_same_again(kind, tmp_path):
    for name, content in READ[kind].files().items():
        (tmp_path / name).write_bytes(content)
    again = read_tokenizer(str(tmp_path))
    assert again.files() == READ[kind].files()
    assert (again.content, again.special, again.tokens) == (READ[kind].content, READ[kind].special, READ[kind].tokens)
    assert (again.reserved, again.is_bert) == (READ[kind].reserved, READ[kind].is_bert)
    assert read_tokenizer(str(tmp_path / "tokenizer.json")).files() == READ[kind].files()


@KINDS
def test_transformers_reads_written_files_with_one_separator_between_two_texts(kind, tmp_path):
    for name, content in READ[kind].files().items():
        (tmp_path / name).write_bytes(content)
    special = READ[kind].special
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), **special.names)
    a, b = (LOADED[kind].encode(text, add_special_tokens=False).ids for text in ("the cat sat", "on 12 mats"))
    assert theirs("the cat sat", "on 12 mats").input_ids == [special.cls, *a, special.sep, *b, special.sep]
    assert theirs("the cat sat").input_ids == [special.cls, *a, special.sep]
    assert theirs.mask_token_id == special.mask


@KINDS
def test_special_unused_and_absent_ids_are_reserved(kind):
    tokenizer = READ[kind]
    special = {getattr(tokenizer.special, role) for role in ("pad", "cls", "sep", "mask", "unk")} - {None}
    assert special <= tokenizer.reserved
    unused = {token for token in tokenizer.tokens if token and "unused" in token}
    assert {tokenizer.ids[token] for token in unused} <= tokenizer.reserved
    assert not {tokenizer.ids[token] for token in tokenizer.tokens if token in ("the", "Ġthe", "▁the", "cat")} & (
        tokenizer.reserved
    )
    gap = json.loads(changed("roberta", "model", "vocab", "a", 10_000))
    assert 400 in parse_tokenizer(json.dumps(gap).encode(), "gap").reserved


@pytest.mark.parametrize("name", ["[MASK]", "<mask>"])
def test_a_tokenizer_without_a_mask_token_is_refused(name):
    content = json.dumps(CONTENTS["roberta"]).replace("<mask>", "<other>").encode()
    assert "here.json: it has no mask token: expected one of [MASK], <mask>, <|mask|>, or a mask_token" in refusal(
        content
    )
    found = parse_tokenizer(content, "here.json", {"mask_token": "<other>"})
    assert found.special.names["mask_token"] == "<other>"
    assert "mask_token is '[MASK]' in special_tokens_map.json" in refusal(content, names={"mask_token": "[MASK]"})


def test_a_tokenizer_with_two_masks_has_to_be_told_which():
    content = changed("roberta", "model", "vocab", "[MASK]", len(READ["roberta"].tokens))
    assert "its mask token may be [MASK] or <mask>: name it" in refusal(content)


def test_a_gpt_style_tokenizer_without_cls_is_refused_until_it_is_named():
    content = changed("roberta", "post_processor", {"type": "ByteLevel", "trim_offsets": True})
    message = refusal(content)
    assert "here.json: it has no [CLS]: its post_processor adds no token before a text" in message
    assert "tokenizer.add_special_tokens({'cls_token': '[CLS]'})" in message
    named = {"cls_token": "<s>", "sep_token": "</s>"}
    assert parse_tokenizer(content, "here.json", named).special == READ["roberta"].special
    assert "it has no [SEP]" in refusal(content, names={"cls_token": "<s>"})


def test_two_tokens_for_one_id_and_two_ids_for_one_token_are_refused():
    vocabulary = CONTENTS["roberta"]["model"]["vocab"]
    assert "'a' and 'b' both have the id" in refusal(changed("roberta", "model", "vocab", "b", vocabulary["a"]))
    assert "'Ġ' and '<new>' both have the id" in refusal(
        changed("roberta", "added_tokens", [{"id": vocabulary["Ġ"], "content": "<new>"}])
    )
    assert "'<mask>' has two ids, 4 and 9" in refusal(changed("roberta", "added_tokens", 4, "id", 9))
    twice = [["<unk>", 0.0], ["a", -1.0], ["a", -2.0]]
    assert "word 2, 'a', has two ids" in refusal(changed("albert", "model", "vocab", twice))
    far = [*CONTENTS["roberta"]["added_tokens"], {"id": 5000, "content": "<new>"}]
    assert "the library tokenizers gives '<new>' the id 381, the file 5000" in refusal(
        changed("roberta", "added_tokens", far)
    )


def test_sources_that_contradict_each_other_are_refused(tmp_path):
    message = refusal(json.dumps(CONTENTS["roberta"]).encode(), names={"cls_token": "</s>"})
    assert (
        "its post_processor has '<s>' as cls_token, but special_tokens_map.json or tokenizer_config.json has" in message
    )
    message = refusal(changed("roberta", "post_processor", "cls", ["<s>", 5]))
    assert "gives '<s>' the id 5, which is '!' in the vocabulary" in message
    padding = {"strategy": "BatchLongest", "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"}
    assert "its padding has '<pad>' with id 0" in refusal(changed("roberta", "padding", padding))
    assert "'<s>' is both the mask_token and the cls_token" in refusal(
        json.dumps(CONTENTS["roberta"]).encode(), names={"mask_token": "<s>"}
    )
    for name, value in (("special_tokens_map", "<mask>"), ("tokenizer_config", {"content": "<pad>"})):
        (tmp_path / f"{name}.json").write_text(json.dumps({"mask_token": value}))
    (tmp_path / "tokenizer.json").write_text(json.dumps(CONTENTS["roberta"]))
    with pytest.raises(
        ValueError, match=r"special_tokens_map.json: mask_token is '<mask>', but .*config.json has '<pad>'"
    ):
        read_tokenizer(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}", "here.json is not a tokenizer.json of the library tokenizers: it has no model with a vocab"),
        (b"[PAD]\n[UNK]\n", "here.json is not JSON"),
        (changed("roberta", "models", {}), "here.json has an unknown part 'models'"),
        (
            changed("roberta", "model", "type", "WordLevel"),
            "its model is 'WordLevel': expected WordPiece, BPE, Unigram",
        ),
        (changed("roberta", "model", "dropout", 0.1), "dropout is 0.1: a text would have other tokens each time"),
        (changed("roberta", "model", "merges", 0, ["a", "zzz"]), "merge 0 needs 'zzz', which is not in its vocab"),
        (changed("roberta", "model", "continuing_subword_prefix", "##"), "merge 0 "),
        (changed("roberta", "model", "vocab", "a", 1 << 24), "the id of 'a' is 16777216, expected 0 to 16,777,215"),
        (changed("roberta", "model", "vocab", "a", 1 << 23), "its largest id is 8,388,608, but it has only"),
        (changed("roberta", "model", "vocab", "\ud800", 500), "not a tokenizer.json of the library tokenizers: "),
        (
            changed("roberta", "pre_tokenizer", {"type": "FixedLength", "length": 0}),
            "its pre_tokenizer is 'FixedLength'",
        ),
        (changed("roberta", "normalizer", {"type": "NFX"}), "its normalizer is 'NFX', which bertloom does not run"),
        (changed("roberta", "decoder", {"type": "CTC"}), "its decoder is 'CTC'"),
        (changed("roberta", "normalizer", [{}]), r"its normalizer is \[\{\}\], expected an object"),
        (
            changed(
                "roberta", "pre_tokenizer", {"type": "Split", "pattern": {"Regex": "(a+)+b"}, "behavior": "Isolated"}
            ),
            r"the regular expression '\(a\+\)\+b' is not one of the published tokenizers that bertloom knows \(GPT-2, ",
        ),
        (
            changed("roberta", "normalizer", {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}),
            "content is 'aa', expected a text that is not longer than the pattern",
        ),
        (
            changed("roberta", "normalizer", {"type": "Replace", "pattern": {"String": ""}, "content": ""}),
            r"pattern is \{'String': ''\}",
        ),
        (
            changed("roberta", "normalizer", {"type": "Sequence", "normalizers": [{"type": "ByteLevel"}] * 2}),
            "has ByteLevel twice",
        ),
        (
            changed("roberta", "normalizer", {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 65}),
            "has 65 parts, expected at most 64",
        ),
        (changed("albert", "model", "unk_id", None), "unk_id is None"),
        (changed("bert", "model", "unk_token", "<unk>"), "unk_token is '<unk>', which is not in its vocab"),
        (changed("bert", "model", "max_input_chars_per_word", 10**6), "expected at most 1,000"),
        (
            changed("bert", "post_processor", {"type": "Other"}),
            "its post_processor 'Other': expected TemplateProcessing",
        ),
        (changed("bert", "post_processor", "single", []), "expected at most one token before"),
        (changed("roberta", "added_tokens", [{"id": 7, "content": ""}]), "an added token is"),
        (
            changed("albert", "added_tokens", [{"id": 64, "content": "\u0301", "normalized": True}]),
            "its normalizer removes the added token",
        ),
    ],
)
def test_what_is_not_a_usable_tokenizer_is_refused(content, message):
    kind = "albert" if b"Unigram" in content else "roberta"
    assert re.search(message, refusal(content, kind))


def test_added_tokens_that_the_normalizer_makes_the_same_are_refused():
    content = copy.deepcopy(CONTENTS["roberta"])
    content["normalizer"] = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    first = max(len(content["model"]["vocab"]), *(entry["id"] + 1 for entry in content["added_tokens"]))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    spaces = [{"id": first + i, "content": text} | flags for i, text in enumerate(("    ", "  "))]
    content["added_tokens"] += spaces
    message = refusal(json.dumps(content).encode())
    assert "its normalizer makes the added tokens '    ' and '  ' the same" in message
    del content["added_tokens"][-1]
    parse_tokenizer(json.dumps(content).encode(), "here.json", NAMES.get("roberta"))


def test_a_bert_normalizer_without_lowercase_is_not_a_traceback():
    content = json.loads(changed("bert", "normalizer", "lowercase", True))
    del content["normalizer"]["lowercase"]
    assert "here.json is not a tokenizer.json of the library" in refusal(json.dumps(content).encode(), "bert")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("AAAA", "its trie is not whole"),
        ("====", "it is not base64"),
        ("BAAAAAABAAAAYQ==", "units that it does not have"),
        (charsmap({"a": "b" * 65}), "has more than 64 bytes, or no end"),
        (charsmap({"a" * 65: "b"}), "its trie has keys of more than 64 bytes"),
        (charsmap({"a": "b"})[:-4] + "////", "its replacements are not UTF-8"),
    ],
)
def test_a_table_of_replacements_that_the_library_cannot_look_up_is_refused(table, message):
    part = {"type": "Precompiled", "precompiled_charsmap": table}
    assert message in refusal(changed("xlm_roberta", "normalizer", part))


@given(
    st.dictionaries(st.text("aé北b", min_size=1, max_size=3), st.text("xyé", max_size=3), min_size=1), st.text("aé北bz")
)
def test_a_table_of_replacements_that_is_whole_is_taken(replacements, text):
    part = {"type": "Precompiled", "precompiled_charsmap": charsmap(replacements)}
    found = parse_tokenizer(changed("xlm_roberta", "normalizer", part), "here.json")
    found.load().encode(text)


def paths(value, path=()):
    """All places in a value of JSON, without the items of large lists and objects."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in list(items)[:12]:
        yield from paths(item, (*path, name))


PLACES = [(kind, path) for kind, content in CONTENTS.items() for path in paths(content) if path]
VALUES = st.sampled_from(
    [
        None,
        True,
        0,
        1,
        -1,
        2**32,
        2**70,
        0.5,
        1e308,
        float("nan"),
        "",
        "a",
        "é" * 40,
        [],
        ["a", "b"],
        [["a", 1]],
        {},
        {"a": 1},
    ]
) | st.sampled_from([part for kind in CONTENTS.values() for part in kind.values()])


@settings(max_examples=300)
@example(("roberta", ("model", "vocab", "a")), 500, "a")
@given(st.sampled_from(PLACES), VALUES, st.text(max_size=20) | st.just("the cat <s> [MASK] ﬁ北京 \n"))
def test_no_changed_value_brings_the_library_to_panic(place, value, text):
    kind, path = place
    try:
        found = parse_tokenizer(changed(kind, *path, value), "here.json", NAMES.get(kind))
    except ValueError as error:
        assert "\n" not in str(error)
        return
    encoding = found.load().encode(text, "b")
    assert max(encoding.ids) < len(found.tokens)
    assert found.content == parse_tokenizer(found.files()["tokenizer.json"], "again", found.special.names).content


def test_a_directory_with_vocab_txt_alone_is_that_of_a_bert_with_its_options(tmp_path):
    words = [token for token in READ["bert"].tokens if token]
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    found = read_tokenizer(str(tmp_path))
    assert found.is_bert and found.vocab_txt == (tmp_path / "vocab.txt").read_bytes()
    assert found.load().encode("The CAT").ids == LOADED["bert"].encode("the cat").ids
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "mask_token": "the"}))
    found = read_tokenizer(str(tmp_path))
    assert not found.content["normalizer"]["lowercase"] and found.special.names["mask_token"] == "the"
    assert not found.is_bert
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\na\n")
    with pytest.raises(ValueError, match=r"vocab.txt: the word 'a' has two ids, 5 and 6"):
        read_tokenizer(str(tmp_path))


def test_what_is_not_a_tokenizer_directory_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has neither tokenizer.json nor vocab.txt: .* merges.txt .* AutoTokenizer"):
        read_tokenizer(str(tmp_path))
    with pytest.raises(
        ValueError, match="none.json does not exist: expected a tokenizer.json, or a directory with one"
    ):
        read_tokenizer(str(tmp_path / "none.json"))
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(ValueError, match="folder.json has neither tokenizer.json nor vocab.txt"):
        read_tokenizer(str(tmp_path / "folder.json"))
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match="tokenizer.json is not a regular file"):
        read_tokenizer(str(tmp_path))
