"""What models do with tokenizers that are not BERT's."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

from bertloom.tokenizer_files import parse_tokenizer, read_tokenizer
from model.hub.initial_weights import check_vocabulary
from model.hub.pretrained import open_pretrained
from model.hub.tokenizer import TextTokenizer, load_tokenizer
from model.hub.weights import save_pretrained
from model.inference.predict import load
from model.loading.data import DataSet
from model.loading.remask import remasking_of
from model.loading.shard_dataset import ShardDataset
from model.tasks.span import SpanRow, answer_tokens
from tests.bertloom.tokenizer_kinds import CONTENTS, NAMES
from tests.model.small_model import random_model
from tests.model.synthetic import write_data_set

OTHERS = [kind for kind in CONTENTS if kind != "bert"]
FILES = {kind: parse_tokenizer(json.dumps(CONTENTS[kind]).encode(), kind, NAMES.get(kind)) for kind in OTHERS}
TOKENIZERS = {kind: TextTokenizer(file) for kind, file in FILES.items()}
KINDS = pytest.mark.parametrize("kind", OTHERS)
WORDS = st.sampled_from(["the", "cat", "sat", "ﬁne", "北京", "é", "1234", "don't", "X", "?", "𝔘"])


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """For each kind a BertForPreTraining with random weights in transformers' form."""
    made = {}
    for kind, tokenizer in TOKENIZERS.items():
        made[kind] = tmp_path_factory.mktemp(kind)
        model = random_model(vocab_size=tokenizer.vocab_size)
        save_pretrained(model, made[kind], tokenizer)
    return made


@pytest.fixture(scope="module")
def theirs(directories):
    return {kind: AutoTokenizer.from_pretrained(directory) for kind, directory in directories.items()}


@KINDS
def test_transformers_reads_the_exported_tokenizer_as_we_do(kind, directories, theirs):
    assert not (directories[kind] / "vocab.txt").exists()
    ours, known = load_tokenizer(directories[kind], TOKENIZERS[kind].vocab_size), theirs[kind]
    assert ours.file.files() == FILES[kind].files()
    assert (known.mask_token_id, known.pad_token_id, known.cls_token_id) == (ours.mask_id, ours.pad_id, ours.cls_id)
    assert known.model_max_length == 64

    @given(*[st.lists(WORDS | st.text(max_size=3), max_size=6).map(" ".join)] * 2)
    def check(first, second):
        names = [entry["content"] for entry in ours.file.content["added_tokens"] if entry["special"]]
        if any(name in first + " " + second for name in names):
            return  # transformers reads a name in a text as the token
        a, b = (ids.tolist() for ids in ours.ids([first, second]))
        assert known(first)["input_ids"] == [ours.cls_id, *a, ours.sep_id]
        if not second:
            return  # transformers takes it for no second text
        assert known(first, second)["input_ids"] == [ours.cls_id, *a, ours.sep_id, *b, ours.sep_id]
        assert known(first, second)["token_type_ids"] == [0] * (len(a) + 2) + [1] * (len(b) + 1)

    check()


@KINDS
def test_words_are_filled_in_as_by_the_pipeline_of_transformers(kind, directories, theirs):
    model, mask = load(directories[kind]), FILES[kind].special.names["mask_token"]
    use = pipeline("fill-mask", model=AutoModelForMaskedLM.from_pretrained(directories[kind]), tokenizer=theirs[kind])
    text = f"the cat {mask} on the mat, where {mask}"
    for ours, known in zip(model.fill(text, top_k=4), use(text, top_k=4), strict=True):
        assert [word for word, _ in ours] == [row["token_str"] for row in known]
        assert [chance for _, chance in ours] == pytest.approx([row["score"] for row in known], abs=2e-6)
    with pytest.raises(ValueError, match="there is no .* in 'the cat': write one where a word is to be found"):
        model.fill("the cat")


@KINDS
@given(words=st.lists(WORDS, max_size=8))
def test_the_tokens_of_given_words_are_those_of_words_between_spaces(kind, words):
    ids, firsts = TOKENIZERS[kind].word_ids([words])[0]
    assert len(firsts) == len(words) and (np.diff(firsts) > 0).all()
    ends = [*firsts[1:].tolist(), len(ids)]
    for word, first, end in zip(words, firsts.tolist(), ends):
        after = TOKENIZERS[kind].ids([f"? {word}"])[0]
        assert ids[first:end].tolist() == after[len(TOKENIZERS[kind].ids(["?"])[0]) :].tolist()


@KINDS
@given(words=st.lists(WORDS, min_size=1, max_size=8), spaces=st.sampled_from([" ", "  ", "\n", " \u3000"]))
def test_the_place_of_a_token_has_no_white_space_around_it(kind, words, spaces):
    text = spaces + spaces.join(words) + spaces
    [(ids, places)] = TOKENIZERS[kind].places([text])
    assert len(ids) == len(places)
    for begin, end in places.tolist():
        assert 0 <= begin <= end <= len(text) and text[begin:end] == text[begin:end].strip()
    assert (np.diff(places, axis=0) >= 0).all()
    covered = {place for begin, end in places.tolist() for place in range(begin, end)}
    assert covered >= {place for place, character in enumerate(text) if not character.isspace()}


@KINDS
def test_an_answer_begins_at_its_word_and_not_at_the_space_before_it(kind):
    context = "the cat sat on the mat"
    [(_, places)] = TOKENIZERS[kind].places([context])
    first, last = answer_tokens(SpanRow("line 1", None, "who?", context, [("cat", 4)]), places)
    assert context[places[first][0] : places[last][1]] == "cat"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return write_data_set(folder, rows=(60,), num_validation=20, tokenizer=FILES["roberta"])


def test_a_data_set_without_vocab_txt_is_read(data):
    data_set = DataSet(data)
    assert data_set.tokenizer().files() == FILES["roberta"].files()
    assert data_set.vocabulary_size == len(FILES["roberta"].tokens)
    remasking = remasking_of(data_set)
    assert remasking.mask_id == FILES["roberta"].special.mask
    assert sorted({*range(data_set.vocabulary_size)} - {*remasking.words.tolist()}) == [0, 1, 2, 3, 4]
    batch = next(iter(ShardDataset(data, batch_size=8)))
    pad = FILES["roberta"].special.pad
    assert (batch["input_ids"][batch["attention_mask"] == 0] == pad).all() and (batch["attention_mask"] == 0).any()


def test_a_data_set_of_another_tokenizer_than_the_models_is_refused(data, directories, tmp_path):
    check_vocabulary(open_pretrained(directories["roberta"]), DataSet(data))
    with pytest.raises(ValueError, match=r"word \d+ is .*; preprocess with the model's tokenizer.json"):
        check_vocabulary(open_pretrained(directories["modernbert"]), DataSet(data))
    changed = CONTENTS["roberta"] | {"normalizer": {"type": "Lowercase"}}
    lower = parse_tokenizer(json.dumps(changed).encode(), "lower")
    write_data_set(tmp_path, rows=(10,), num_validation=2, tokenizer=lower)
    with pytest.raises(
        ValueError, match="was made with another normalizer than the tokenizer of .*: preprocess with the"
    ):
        check_vocabulary(open_pretrained(directories["roberta"]), DataSet(tmp_path))


def test_an_id_above_the_models_vectors_is_refused(directories):
    size = TOKENIZERS["roberta"].vocab_size
    with pytest.raises(ValueError, match=f"the model has vectors for {size - 1}: .* id {size - 1} has no vector"):
        load_tokenizer(directories["roberta"], size - 1)


def test_words_without_tokens_get_one():
    ids, firsts = TOKENIZERS["albert"].word_ids([["\u0301", "cat"]])[0]
    assert ids[0] == FILES["albert"].special.unk and firsts.tolist() == [0, 1]
    assert torch.as_tensor(ids.astype(int)).max() < TOKENIZERS["albert"].vocab_size


@pytest.mark.parametrize("kind", ["RobertaTokenizer", "GPT2TokenizerFast", "PreTrainedTokenizerFast"])
@pytest.mark.parametrize("configured", [True, False, None])
@pytest.mark.parametrize("own", [True, False])
def test_a_space_before_a_text_is_read_as_transformers_reads_it(kind, configured, own, tmp_path):
    content = CONTENTS["roberta"] | {"pre_tokenizer": CONTENTS["roberta"]["pre_tokenizer"] | {"add_prefix_space": own}}
    config = {"tokenizer_class": kind} | ({} if configured is None else {"add_prefix_space": configured})
    named = {f"{role}_token": FILES["roberta"].special.names[f"{role}_token"] for role in ("cls", "sep", "unk", "mask")}
    for name, value in (
        ("tokenizer", content),
        ("tokenizer_config", config | named),
        ("config", {"model_type": "bart"}),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    known = AutoTokenizer.from_pretrained(tmp_path)("the cat", add_special_tokens=False)["input_ids"]
    ours = load_tokenizer(tmp_path, TOKENIZERS["roberta"].vocab_size)
    assert ours.ids(["the cat"])[0].tolist() == known
    assert read_tokenizer(str(tmp_path / "tokenizer.json")).files() == ours.file.files()
