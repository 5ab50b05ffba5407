"""The vocabulary of any tokenizer: its special tokens, its tokens as text, and what --vocab takes."""

import json
import shutil

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertloom.tokenizer_files import parse_tokenizer
from pipeline.checks.report import PARTS, UNKNOWN, scripts
from pipeline.examples.decoding import spans
from pipeline.stages.word_cuts import BertWords, cut_of
from pipeline.tokenizer_vocabulary import TokenizerVocabulary
from pipeline.vocabulary import Casing, Vocabulary, parse_vocabulary
from pipeline.vocabulary_files import parse_copy, read_vocabulary
from tests.bertloom.tokenizer_kinds import CONTENTS, NAMES, TEXT

OTHERS = sorted(CONTENTS.keys() - {"bert"})
NO_FLAGS = Casing(None, None)


def of(kind):
    return parse_tokenizer(json.dumps(CONTENTS[kind]).encode(), f"{kind}.json", NAMES.get(kind))


VOCABULARIES = {kind: TokenizerVocabulary.of(of(kind)) for kind in OTHERS}


def write(folder, kind):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(CONTENTS[kind]))
    if kind in NAMES:
        (folder / "special_tokens_map.json").write_text(json.dumps(NAMES[kind]))
    return folder


def encode(vocabulary, text):
    return vocabulary.tokenizer.load().encode(text, add_special_tokens=False).ids


# ---- ids


@pytest.mark.parametrize("kind", OTHERS)
def test_the_files_of_a_data_set_give_the_same_vocabulary_again(kind):
    vocabulary = VOCABULARIES[kind]
    files = vocabulary.files(NO_FLAGS)
    assert sorted(files) == ["special_tokens_map.json", "tokenizer.json"]
    again = parse_copy("tokenizer.json", files.__getitem__)
    assert again.files(NO_FLAGS) == files
    for name in ("words", "sha256", "special_tokens_sha256", "pad", "unk", "cls", "sep", "mask"):
        assert getattr(again, name) == getattr(vocabulary, name), name
    assert vocabulary.as_dict() == {
        "sha256": vocabulary.sha256,
        "size": len(vocabulary.words),
        "file": "tokenizer.json",
    }


@pytest.mark.parametrize("kind", OTHERS)
def test_special_and_unused_tokens_are_never_random_words(kind):
    vocabulary = VOCABULARIES[kind]
    words = [vocabulary.words[i] for i in vocabulary.ordinary]
    special = {vocabulary.words[i] for i in (vocabulary.pad, vocabulary.cls, vocabulary.sep, vocabulary.mask)}
    assert not special & set(words) and "" not in words and len(words) > 50
    assert not [word for word in words if "unused" in word or "reserved" in word]
    assert vocabulary.unk is None or vocabulary.unk not in vocabulary.ordinary


def test_an_id_without_a_token_is_never_drawn():
    content = json.loads(json.dumps(CONTENTS["roberta"]))
    content["model"]["vocab"]["zzz"] = max(content["model"]["vocab"].values()) + 3
    vocabulary = TokenizerVocabulary.of(parse_tokenizer(json.dumps(content).encode(), "x"))
    holes = [i for i, word in enumerate(vocabulary.words) if word == ""]
    assert len(holes) == 2 and not np.isin(holes, vocabulary.present).any()
    assert not np.isin(holes, vocabulary.ordinary).any()


@pytest.mark.parametrize("flags", [Casing(True, None), Casing(False, None), Casing(None, False)])
def test_flags_about_casing_are_refused_for_other_tokenizers(flags):
    with pytest.raises(ValueError, match="x.json is not BERT's tokenizer, so its own rules decide.*leave the flag out"):
        VOCABULARIES["roberta"].settled_casing(flags, "x.json")
    assert VOCABULARIES["roberta"].settled_casing(NO_FLAGS, "x.json") == NO_FLAGS


def test_what_a_normalizer_does_to_capitals_and_accents_is_known():
    assert VOCABULARIES["albert"].casing == (True, True)
    assert VOCABULARIES["roberta"].casing == (False, False)


# ---- as text


@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=60))
@settings(max_examples=300)
def test_byte_level_tokens_are_the_text(text):
    vocabulary = VOCABULARIES["roberta"]
    ids = encode(vocabulary, text)
    assert vocabulary.readable.text(ids) == text.strip()
    shown = "".join(map(str, spans(ids, ids, [False] * len(ids), vocabulary)))
    assert shown.strip() == text.strip()


@pytest.mark.parametrize("kind", sorted({*OTHERS} - {"mpnet"}))
def test_tokens_as_text_are_what_the_library_decodes(kind):
    vocabulary = VOCABULARIES[kind]
    for text in TEXT:
        ids = encode(vocabulary, text)
        expected = vocabulary.tokenizer.load().decode(ids, skip_special_tokens=False).strip()
        if vocabulary.tokenizer.content["decoder"] is None:
            expected = text  # the library puts a space between all tokens
        assert vocabulary.readable.text(ids) == expected


def test_word_pieces_are_joined_as_those_of_bert():
    vocabulary = VOCABULARIES["mpnet"]
    text = [vocabulary.readable.text(encode(vocabulary, text)) for text in TEXT[:3]]
    assert text == [TEXT[0], TEXT[1].replace("'", " ' "), TEXT[2].replace(" ", "")]


def test_masked_tokens_are_shown_alone_and_parts_of_a_character_as_bytes():
    vocabulary = VOCABULARIES["roberta"]
    ids = encode(vocabulary, "the:囍x cat")
    names = [vocabulary.readable.names[i] for i in ids]
    assert names == ["the", ":", "\\xe5", "\\x9b", "\\x8d", "x", " cat"]
    masked = [False, False, False, True, False, False, True]
    there = [vocabulary.mask if hidden else i for i, hidden in zip(ids, masked)]
    assert "".join(map(str, spans(there, ids, masked, vocabulary))) == "the:\\xe5⟦MASK→\\x9b⟧\\x8dx ⟦MASK→cat⟧"
    blank = spans([vocabulary.mask], encode(vocabulary, " z")[:1], [True], vocabulary)
    assert str(blank[0]) == "⟦MASK→␣⟧"


def test_a_random_word_and_a_kept_one_are_told_apart_by_id():
    vocabulary = VOCABULARIES["xlm_roberta"]
    ids = encode(vocabulary, "the and the")
    the, and_ = vocabulary.words.index("▁the"), ids[1:-1]
    there = [and_[0], *and_, the]
    masked = [True, *(False for _ in and_), True]
    first = vocabulary.readable.texts[and_[0]] or "␣"
    assert "".join(map(str, spans(there, ids, masked, vocabulary))) == f"⟦{first}→the⟧ and ⟦=the⟧"


def test_scripts_are_those_of_the_text_and_not_of_the_letters_that_stand_for_bytes():
    names, index = scripts(VOCABULARIES["roberta"])
    words = VOCABULARIES["roberta"].words

    def script(word):
        return names[index[words.index(word)]]

    assert (script("Ġthe"), script("Ċ"), script("ä"), script(".")) == ("Latin", "punctuation", PARTS, "punctuation")
    assert script("<unk>") == UNKNOWN
    names, index = scripts(VOCABULARIES["xlm_roberta"])
    assert names[index[VOCABULARIES["xlm_roberta"].words.index("▁the")]] == "Latin"


def test_marks_that_end_sentences_are_found_in_tokens_of_several_characters():
    words = ["Ġ.", '."', '"', "').", "a.", ",", '."x']
    content = json.loads(json.dumps(CONTENTS["roberta"]))
    first = max(content["model"]["vocab"].values()) + 1
    known = content["model"]["vocab"]
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] in known.values()]
    known |= {word: first + i for i, word in enumerate(word for word in words if word not in known)}
    vocabulary = TokenizerVocabulary.of(parse_tokenizer(json.dumps(content).encode(), "x"))
    kinds = vocabulary.kinds
    ids = [vocabulary.words.index(word) for word in words]
    assert kinds.ends[ids].tolist() == [True, True, False, True, True, False, False]
    assert kinds.closes[ids].tolist() == [False, False, True, False, False, False, False]
    assert not kinds.continuation.any()  # `inside_words` of the tokens says it


def test_words_of_several_tokens_are_seen_in_the_tokens_of_a_shard():
    vocabulary = VOCABULARIES["roberta"]
    ids = np.array(encode(vocabulary, "the zq zq.zq:囍"))
    words = [vocabulary.readable.names[i] for i in ids]
    assert words == ["the", " ", "z", "q", " ", "z", "q", ".", "z", "q", ":", "\\xe5", "\\x9b", "\\x8d"]
    inside = vocabulary.continues(ids).tolist()
    assert inside == [False, False, True, True, False, True, True, False, False, True, False, False, True, True]


# ---- what --vocab takes


def test_a_tokenizer_json_and_its_folder_are_the_same_vocabulary(tmp_path):
    for kind in OTHERS:
        folder = write(tmp_path / kind, kind)
        found = read_vocabulary(str(folder))
        assert isinstance(found, TokenizerVocabulary)
        assert found.files(NO_FLAGS) == read_vocabulary(str(folder / "tokenizer.json")).files(NO_FLAGS)
        assert found.files(NO_FLAGS) == VOCABULARIES[kind].files(NO_FLAGS)


def test_a_tokenizer_may_be_in_a_store():
    store = fsspec.filesystem("memory")
    store.pipe("/tokenizers/roberta/tokenizer.json", json.dumps(CONTENTS["roberta"]).encode())
    store.pipe("/tokenizers/bert/vocab.txt", of("bert").vocab_txt)
    try:
        for path in ("memory://tokenizers/roberta", "memory://tokenizers/roberta/tokenizer.json"):
            assert read_vocabulary(path).sha256 == VOCABULARIES["roberta"].sha256
        assert read_vocabulary("memory://tokenizers/bert").casing == (True, None)
        with pytest.raises(ValueError, match="memory://tokenizers/none.txt: .*`bertloom build-vocab`"):
            read_vocabulary("memory://tokenizers/none.txt")
    finally:
        store.rm("/tokenizers", recursive=True)


def test_bert_s_own_tokenizer_is_its_vocab_txt_with_its_casing(tmp_path):
    found = read_vocabulary(str(write(tmp_path, "bert")))
    assert type(found) is Vocabulary and found.casing == (True, None)
    words = "".join(f"{word}\n" for word in found.words).encode()
    assert found.sha256 == parse_vocabulary(words, "v").sha256
    assert found.settled_casing(NO_FLAGS, "x") == found.settled_casing(Casing(True, True), "x") == (True, None)
    with pytest.raises(
        ValueError, match="^--no-do-lower-case: the tokenizer of x lower-cases the text, .* the flag out$"
    ):
        found.settled_casing(Casing(False, None), "x")
    with pytest.raises(
        ValueError, match="^--strip-accents False: the tokenizer of x removes accents, as its own files"
    ):
        found.settled_casing(Casing(None, False), "x")


def test_bert_s_own_tokenizer_may_leave_out_what_happens_to_accents(tmp_path):
    normalizer = {name: value for name, value in CONTENTS["bert"]["normalizer"].items() if name != "strip_accents"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(CONTENTS["bert"] | {"normalizer": normalizer}))
    found = read_vocabulary(str(tmp_path))
    assert type(found) is Vocabulary and found.casing == (True, None)
    assert cut_of(json.loads((tmp_path / "tokenizer.json").read_text())) == BertWords(True, None)


@pytest.mark.parametrize(
    "config, casing",
    [
        ({"do_lower_case": False}, (False, None)),
        ({"do_lower_case": True, "strip_accents": False}, (True, False)),
        (None, (True, None)),
    ],
)
def test_tokenizer_config_json_beside_vocab_txt_decides_about_casing(tmp_path, config, casing):
    (tmp_path / "vocab.txt").write_bytes(of("bert").vocab_txt)
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    found = read_vocabulary(str(tmp_path))
    assert type(found) is Vocabulary and found.casing == casing
    assert read_vocabulary(str(tmp_path / "vocab.txt")).casing is None  # then flags decide


def _safetensors(folder):
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}" + bytes(100))
    return folder / "model.safetensors"


def _sentencepiece(folder):
    (folder / "spm").write_bytes(b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02\n\x0c\n\x03<s>")
    return folder / "spm"


def _merges(folder):
    (folder / "vocab.json").write_text('{"<s>": 0, "a": 1}')
    (folder / "merges.txt").write_text("#version: 0.2\n\u0120 t\n")
    return folder / "merges.txt"


def _vocab_json(folder):
    return _merges(folder).parent / "vocab.json"


def _roberta_folder(folder):
    return _merges(folder).parent


def _weights(folder):
    (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04" + bytes(60))
    return folder / "pytorch_model.bin"


def _changed(change):
    def make(folder):
        content = json.loads(json.dumps(CONTENTS["roberta"]))
        change(content)
        (folder / "tokenizer.json").write_text(json.dumps(content))
        return folder / "tokenizer.json"

    return make


def _no_mask(content):
    content["added_tokens"] = [entry for entry in content["added_tokens"] if entry["content"] != "<mask>"]
    del content["model"]["vocab"]["<mask>"]


def _two_for_one_id(content):
    content["model"]["vocab"]["the"] = content["model"]["vocab"]["Ġthe"]


def _gpt(content):
    content["post_processor"] = {
        "type": "ByteLevel",
        "add_prefix_space": True,
        "trim_offsets": False,
        "use_regex": True,
    }
    content["added_tokens"] = [entry for entry in content["added_tokens"] if entry["content"] == "<mask>"]


@pytest.mark.parametrize(
    "make, says",
    [
        (
            _safetensors,
            r"model\.safetensors holds the weights of a model \(safetensors\): expected the tokenizer\.json",
        ),
        (_weights, r"pytorch_model\.bin is a zip archive, perhaps with the weights of a model: expected the tokenizer"),
        (_sentencepiece, r"spm is a model of SentencePiece: expected .* AutoTokenizer\.from_pretrained\(FOLDER\)"),
        (_merges, r"merges\.txt is one of two files of a tokenizer \(vocab\.json and merges\.txt\): expected the tok"),
        (_vocab_json, r"vocab\.json is one of two files of a tokenizer .*save_pretrained\(NEW\)"),
        (_roberta_folder, r"has neither tokenizer\.json nor vocab\.txt.*merges\.txt.*AutoTokenizer"),
        (lambda folder: folder, r"has neither tokenizer\.json nor vocab\.txt"),
        (_changed(_no_mask), "mask"),
        (_changed(_two_for_one_id), "both have the id"),
        (_changed(_gpt), r"\[CLS\]|cls"),
    ],
)
def test_what_is_not_a_tokenizer_for_an_encoder_is_named_in_one_line(tmp_path, make, says):
    with pytest.raises(ValueError, match=says) as error:
        read_vocabulary(str(make(tmp_path)))
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_the_folder_of_a_data_set_is_a_vocabulary(tmp_path):
    for name, content in VOCABULARIES["roberta"].files(NO_FLAGS).items():
        (tmp_path / name).write_bytes(content)
    assert read_vocabulary(str(tmp_path)).sha256 == VOCABULARIES["roberta"].sha256
    shutil.copy(tmp_path / "tokenizer.json", tmp_path / "other.json")
    assert read_vocabulary(str(tmp_path / "other.json")).sha256 == VOCABULARIES["roberta"].sha256
