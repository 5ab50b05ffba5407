"""`adapt-vocab`: new words for a model's vocabulary, and what stays as it was."""

import json
import re
from functools import lru_cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertModel,
    BertTokenizer,
    ModernBertConfig,
    ModernBertForMaskedLM,
)

from jobs.adapt_vocab import AdaptVocabConfig, adapt_vocab
from jobs.cli import main
from jobs.import_model import ImportConfig, import_model
from model.hub.pretrained import open_pretrained
from model.hub.tokenizer import TextTokenizer, save_tokenizer
from pipeline.stages.word_cuts import cut_of
from pipeline.tokenizer_models.growth import GrowthConfig
from pipeline.tokenizer_models.registry import MODELS
from pipeline.tokenizer_models.training import TrainingConfig
from tests.pipeline.small_text import ODD_TEXT, VOCABULARY

TEXT = (
    [{"text": "The cat sat. Kubernetes sat, and the cat asked kubernetes: why KUBERNETES? cat2 2024 2024 2024 2024"}]
    * 3
    + [{"text": "She asked ☃ the kubernetes. He asked ☃☃ the cpython, the cpython of cats."}] * 4
    + [{"text": "cpython abling rare-ish 中文 ☃"}] * 2
)
WORDS = VOCABULARY.words
NEW = ["kubernetes", "cpython", "abling", "and", "rare", "☃"]
"""The six words that TEXT needs most. They save 117, 60, 6, 6, 6 and 6 tokens; 2024 is not a word, and 中 is known."""


def write_texts(path, texts=TEXT):
    path.write_text("".join(json.dumps(text) + "\n" for text in texts), "utf-8")
    return path


def write_bert(directory, kind=BertForPreTraining, spare=0):
    """A directory that transformers writes, with random weights."""
    torch.manual_seed(1)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = kind(BertConfig(**shape, max_position_embeddings=64, vocab_size=len(WORDS) + spare))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    (directory / "vocab.txt").write_bytes(VOCABULARY.text)
    BertTokenizer(str(directory / "vocab.txt")).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapt")
    write_bert(folder / "bert")
    write_texts(folder / "in.jsonl")
    return folder


def adapt(folder, out, model="bert", **changes):
    growth = {"num_words": 6, "min_frequency": 2} | {
        name: changes.pop(name) for name in [*changes] if name in ("num_words", "min_frequency", "keep_unused")
    }
    values = {"model": folder / model, "input": (str(folder / "in.jsonl"),), "out": out} | changes
    return adapt_vocab(AdaptVocabConfig(growth=GrowthConfig(**growth), **values))


@pytest.fixture(scope="module")
def adapted(folder):
    adapt(folder, folder / "adapted")
    return folder / "adapted"


def rows(directory):
    """The vectors and biases of a model's words."""
    state = AutoModelForMaskedLM.from_pretrained(directory).state_dict()
    return state["bert.embeddings.word_embeddings.weight"], state["cls.predictions.bias"]


def test_the_words_that_save_most_tokens_are_added_in_the_places_of_unused_words_first(folder, adapted):
    words = open_pretrained(adapted).tokenizer.words
    unused = [WORDS.index(f"[unused{i}]") for i in range(4)]
    assert [words[i] for i in unused] == NEW[:4] and words[len(WORDS) :] == NEW[4:]
    assert all(words[i] == word for i, word in enumerate(WORDS) if i not in unused)
    table = (adapted / "new_words.tsv").read_text("utf-8").splitlines()
    assert table[1] == f"{unused[0]}\tkubernetes\t13\t117\tk ##u ##b ##e ##r ##n ##e ##t ##e ##s" and len(table) == 7


def test_the_vector_and_bias_of_a_new_word_are_the_means_of_its_old_pieces_and_the_others_stay(folder, adapted):
    before, after = open_pretrained(folder / "bert"), open_pretrained(adapted)
    ids = {word: i for i, word in enumerate(after.tokenizer.words)}
    new = {ids[word]: before.tokenizer.ids([word])[0].tolist() for word in NEW}
    changed = {
        name for name in before.weights if not torch.equal(before.weights[name], after.weights[name][: len(WORDS)])
    }
    assert changed == {"bert.embeddings.word_embeddings.weight", "cls.predictions.bias"}
    for name in changed:
        old, grown = before.weights[name], after.weights[name]
        assert len(grown) == len(WORDS) + 2
        kept = [i for i in range(len(WORDS)) if i not in new]
        assert torch.equal(old[kept], grown[kept])
        for number, pieces in new.items():
            torch.testing.assert_close(grown[number], old[pieces].mean(0))


@given(ODD_TEXT | st.lists(st.sampled_from([*NEW, "Kubernetes", "kubernetesx", "[unused1]", " "])).map("".join))
@settings(max_examples=200)
def test_tokens_change_only_in_words_that_begin_with_a_new_word(folder, adapted, text):
    old, new = (open_tokenizer(path) for path in (folder / "bert", adapted))
    cut, normalize = old.pre_tokenizer.pre_tokenize_str, old.normalizer.normalize_str
    for word, _ in cut(normalize(text)):
        before, after = (one.encode(word, add_special_tokens=False).ids for one in (old, new))
        if word in NEW:
            assert after == [new.token_to_id(word)]
        elif not word.startswith(tuple(NEW)):
            assert before == after


@lru_cache
def open_tokenizer(path):
    return open_pretrained(path).tokenizer.tokenizer


@given(ODD_TEXT)
@settings(max_examples=50)
def test_transformers_gives_the_same_ids_and_loads_the_same_model(adapted, text):
    for special in ("[MASK]", "[CLS]", "[SEP]", "[PAD]", "[UNK]"):
        text = text.replace(special, "")  # special words for transformers, text for bertloom
    ours = open_tokenizer(adapted).encode(f"kubernetes {text}", add_special_tokens=False).ids
    assert load_theirs(adapted)(f"kubernetes {text}", add_special_tokens=False)["input_ids"] == ours


@lru_cache
def load_theirs(path):
    return AutoTokenizer.from_pretrained(path)


def test_transformers_loads_the_model_with_tied_vectors(folder, adapted):
    model, info = AutoModelForMaskedLM.from_pretrained(adapted, output_loading_info=True)
    assert not info["missing_keys"] and model.config.vocab_size == len(WORDS) + 2
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert len(AutoModel.from_pretrained(adapted).embeddings.word_embeddings.weight) == len(WORDS) + 2
    import_model(ImportConfig(hf=adapted, out=folder / "run"))
    assert (folder / "run/model/vocab.txt").read_bytes() == (adapted / "vocab.txt").read_bytes()


@pytest.mark.parametrize("kind", [BertForMaskedLM, BertModel])
def test_a_model_with_one_head_or_none_keeps_its_class(folder, tmp_path, kind):
    write_bert(tmp_path / "bert", kind)
    adapt(folder, tmp_path / "out", model=tmp_path / "bert")
    assert json.loads((tmp_path / "out/config.json").read_text())["architectures"] == [kind.__name__]
    before, after = (open_pretrained(tmp_path / name).weights for name in ("bert", "out"))
    assert before.keys() == after.keys()


def test_unused_words_stay_on_request(folder, tmp_path):
    adapt(folder, tmp_path / "out", keep_unused=True)
    assert open_pretrained(tmp_path / "out").tokenizer.words == [*WORDS, *NEW]


def test_spare_vectors_are_used_before_the_model_grows_by_its_multiple(folder, tmp_path):
    spare = -len(WORDS) % 32
    assert spare
    write_bert(tmp_path / "bert", BertForMaskedLM, spare)
    for number in (spare, spare + 1):
        adapt(folder, tmp_path / str(number), model=tmp_path / "bert", num_words=number, keep_unused=True)
    before, fits, grown = (rows(tmp_path / name) for name in ("bert", str(spare), str(spare + 1)))
    assert len(fits[0]) == len(before[0]) and len(grown[0]) == len(before[0]) + 32
    for old, new in zip(before, grown, strict=True):
        assert torch.equal(new[: len(WORDS)], old[: len(WORDS)])
        assert all(torch.equal(row, old[-1]) for row in new[len(before[0]) + 1 :])


def test_the_same_text_gives_the_same_files_with_any_workers_and_any_files(folder, tmp_path):
    lines = (folder / "in.jsonl").read_text("utf-8").splitlines(keepends=True)
    (tmp_path / "texts").mkdir()
    for number, line in enumerate(reversed(lines)):
        (tmp_path / f"texts/{number}.jsonl").write_text(line, "utf-8")
    adapt(folder, tmp_path / "one")
    adapt(folder, tmp_path / "two", input=(str(tmp_path / "texts"),), num_workers=2)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_command_prints_what_the_words_do_to_the_text_and_to_the_held_out_text(folder, tmp_path, capsys):
    held_out = write_texts(tmp_path / "held.jsonl", [{"text": "The cat asked kubernetes."}])
    words = ["adapt-vocab", str(folder / "bert"), "--input", str(folder / "in.jsonl"), "--held-out", str(held_out)]
    assert main([*words, "--num-words", "6", "--min-frequency", "2", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert f"a BertForPreTraining with 6 new words, {len(WORDS) + 2} words in all" in printed
    assert "4 in the place of [unusedN] words, 2 after the others" in printed and " ".join(NEW) in printed
    assert re.search(r"text +381 +186 +51.18% +2.625% +2.151%", printed), printed
    assert re.search(r"held out +14 +5 +64.29% +0.000% +0.000%", printed), printed


def test_nothing_is_written_where_a_directory_has_files(folder, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    words = ["adapt-vocab", str(folder / "bert"), "--input", str(folder / "in.jsonl"), "--num-words", "6"]
    assert main([*words, "--out", str(tmp_path)]) == 2
    assert "holds notes.txt already" in capsys.readouterr().err and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--num-words", "60"], "num_words=60: the text has 11 words that occur 2 times .* or --num-words 11"),
        (["--num-words", "0"], "num_words=0: expected 1 to 1,048,576"),
        (["--num-words", "1", "--min-frequency", "0"], "min_frequency=0: expected 1 or more"),
        (["--num-words", "1", "--min-frequency", "999"], "the text has 0 words that occur 999 times"),
        (["--num-words", "1", "--held-out", "none.txt"], "none.txt"),
    ],
)
def test_wrong_numbers_are_refused_and_nothing_is_written(folder, tmp_path, capsys, flags, says):
    words = ["adapt-vocab", str(folder / "bert"), "--input", str(folder / "in.jsonl"), "--min-frequency", "2"]
    words = words[:-2] if "--min-frequency" in flags else words
    assert main([*words, *flags, "--out", str(tmp_path / "out")]) == 2
    assert re.search(says, capsys.readouterr().err) and not list(tmp_path.iterdir())


def test_a_text_without_words_and_a_folder_without_a_model_are_refused(folder, tmp_path, capsys):
    (tmp_path / "empty.txt").write_text("\n")
    words = ["adapt-vocab", str(folder / "bert"), "--input", str(tmp_path / "empty.txt"), "--num-words", "6"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    assert "no text in 1 file" in capsys.readouterr().err
    words = ["adapt-vocab", str(tmp_path), "--input", str(folder / "in.jsonl"), "--num-words", "6"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    assert "is no model" in capsys.readouterr().err and not (tmp_path / "out").exists()


# ---- other tokenizers


@pytest.fixture(scope="module")
def modern(tmp_path_factory):
    """A ModernBERT of transformers with a BPE tokenizer, and one with a Unigram tokenizer."""
    folder = tmp_path_factory.mktemp("modern")
    for name in ("bpe", "unigram"):
        config = TrainingConfig(vocab_size=400, do_lower_case=False)
        counter = cut_of(MODELS[name].parts(config)).counter()
        for text in TEXT:
            counter.add(text["text"].split("ubernetes")[0].encode())
        tokenizer = MODELS[name].train(counter.take(), config)
        torch.manual_seed(2)
        shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        special = {f"{role}_token_id": getattr(tokenizer.special, role) for role in ("pad", "cls", "sep")}
        special |= {"bos_token_id": special["cls_token_id"], "eos_token_id": special["sep_token_id"]}
        model = ModernBertForMaskedLM(ModernBertConfig(**shape, **special, vocab_size=len(tokenizer.tokens)))
        model.save_pretrained(folder / name)
        save_tokenizer(TextTokenizer(tokenizer), folder / name, 64, has_token_types=False)
    return folder


@pytest.mark.parametrize("name", ["bpe", "unigram"])
def test_a_modernbert_with_another_tokenizer_gets_new_words(folder, modern, tmp_path, name, capsys):
    adapt(folder, tmp_path / "out", model=modern / name, num_words=12)
    assert "a ModernBertForMaskedLM with 12 new words" in capsys.readouterr().out
    before, after = open_pretrained(modern / name), open_pretrained(tmp_path / "out")
    size = before.tokenizer.vocab_size
    table = [line.split("\t") for line in (tmp_path / "out/new_words.tsv").read_text("utf-8").splitlines()[1:]]
    assert [int(row[0]) for row in table] == [*range(size, size + 12)]
    changed = {
        n for n in before.weights if not torch.equal(before.weights[n], after.weights[n][: len(before.weights[n])])
    }
    assert not changed
    grew = {n for n in before.weights if len(after.weights[n]) != len(before.weights[n])}
    assert grew == {"model.embeddings.tok_embeddings.weight", "decoder.bias"}
    model, info = AutoModelForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and model.config.vocab_size == size + 12
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = [row["text"] for row in TEXT]
    ids = [found.tolist() for found in after.tokenizer.ids(texts)]
    assert theirs(texts, add_special_tokens=False)["input_ids"] == ids
    assert sum(map(len, ids)) < sum(map(len, before.tokenizer.ids(texts)))
    import_model(ImportConfig(hf=tmp_path / "out", out=tmp_path / "run"))
