"""`bertloom compare`, against transformers and plain Python."""

import json
import math
from collections import Counter

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForPreTraining, AutoTokenizer

from bertloom.tokenizer_files import parse_tokenizer
from jobs.compare import CompareConfig, compare, main
from jobs.support.comparison import deviation_of_mean
from jobs.support.held_out import cut_windows, read_held_out
from jobs.support.verdict import Comparison, Difference, TaskScores
from model.heads import PretrainingModel
from model.hub.pretrained import open_pretrained
from model.hub.tokenizer import TextTokenizer
from model.hub.weights import save_pretrained
from pipeline.inputs.sources import ReadConfig
from tests.bertloom.tokenizer_kinds import CONTENTS, NAMES
from tests.jobs.test_held_out import tokenizer_of
from tests.model.small_model import random_model
from tests.model.small_task import CHINESE, VOCABULARY, sentiment_rows, small_tokenizer, write_jsonl, write_model
from tests.model.test_modern_bert import modern_config, with_random_weights

TEXTS = [
    f"Anna lives in Paris {number}. Where is London? THE FILM is bad, É 京 & the\tcapital… Fîlm of naïve 北京市 {number}"
    for number in range(25)
]


def write_cased_model(directory):
    """A model with a cased vocabulary, without most letters: many words are [UNK]."""
    words = [
        *"Anabcdefilmoprs.,?",
        *(f"##{letter}" for letter in "abcdefilmnoprs"),
        *CHINESE,
        "Paris",
        "The",
        "is",
        "É",
    ]
    save_pretrained(random_model(vocab_size=5 + len(words)), directory, tokenizer_of(words, lowercase=False))
    return directory


def write_modern_model(directory):
    """A ModernBERT with the vocabulary of `write_model`."""
    model = with_random_weights(PretrainingModel(modern_config(vocab_size=len(VOCABULARY))))
    save_pretrained(model, directory, small_tokenizer())
    return directory


def write_model_of(kind, directory):
    """A BERT with a small tokenizer of a kind that is well known."""
    tokenizer = TextTokenizer(parse_tokenizer(json.dumps(CONTENTS[kind]).encode(), kind, NAMES.get(kind)))
    save_pretrained(random_model(vocab_size=tokenizer.vocab_size), directory, tokenizer)
    return directory


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """BERTs with several tokenizers, and a ModernBERT."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "before": write_model(folder / "before"),
        "after": write_model(folder / "after", num_hidden_layers=1),
        "cased": write_cased_model(folder / "cased"),
        "modern": write_modern_model(folder / "modern"),
        "bpe": write_model_of("roberta", folder / "bpe"),
        "unigram": write_model_of("albert", folder / "unigram"),
    }


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_jsonl(tmp_path_factory.mktemp("text") / "text.jsonl", [{"text": text} for text in TEXTS])


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    write_jsonl(folder / "train.jsonl", sentiment_rows(40))
    write_jsonl(folder / "dev.jsonl", sentiment_rows(20, seed=9))
    head = 'num_epochs = 0.5\nbatch_size = 16\ndevice = "cpu"\nnum_threads = 1\nseeds = [1, 2]\n'
    (folder / "tasks.toml").write_text(
        f'{head}[feeling]\ntask = "classify"\ntrain = "train.jsonl"\ndev = "dev.jsonl"\n'
    )
    return folder / "tasks.toml"


def words_of(models):
    return [f"{name}={path}" for name, path in models.items()]


@pytest.fixture(scope="module")
def compared(models, text, tasks, tmp_path_factory):
    """A finished comparison: its folder, and the words of its command."""
    out = tmp_path_factory.mktemp("compared") / "out"
    flags = ["--text", str(text), "--tasks", str(tasks), "--out", str(out), "--device", "cpu", "--num-threads", "1"]
    assert main([*words_of(models), *flags]) == 0
    return out, [*words_of(models), *flags]


def losses_by_hand(directory, windows):
    """The bits of each masked word, by transformers and by counting, as docs/hugging-face.md explains them."""
    tokenizer, model = AutoTokenizer.from_pretrained(directory), AutoModelForMaskedLM.from_pretrained(directory).eval()
    normalizer = tokenizer.backend_tokenizer.normalizer

    def plain(character):
        return (normalizer.normalize_str(character) if normalizer else character).replace("▁", "").strip()

    read = []  # (the window, its ids, those of a word, whether that is masked, its characters)
    for window in windows:
        encoding = tokenizer(window.text, add_special_tokens=False, return_offsets_mapping=True)
        tokens = list(zip(encoding["input_ids"], encoding["offset_mapping"]))
        touching = [i for i, (_, (a, b)) in enumerate(tokens) if a < window.units[-1, 1] and b > window.units[0, 0]]
        tokens = tokens[touching[0] : touching[-1] + 1]
        for (begin, end), masked in zip(window.units.tolist(), window.is_masked):
            own = [i for i, (_, (a, b)) in enumerate(tokens) if a < end and b > begin]
            known = [tokens[i][1] for i in own if tokens[i][0] != tokenizer.unk_token_id]
            characters = [
                (window.text[i], i == begin, any(a <= i < b for a, b in known) and plain(window.text[i]) != "")
                for i in range(begin, end)
                if not window.text[i].isspace()
            ]
            read.append((window, [number for number, _ in tokens], own, masked, characters))
    lengths = Counter(len(own) for _, _, own, _, _ in read)
    forms = Counter()
    for *_, characters in read:
        forms.update(
            (plain(character), is_first, character) for character, is_first, is_known in characters if is_known
        )
    losses = []
    for window, ids, own, masked, characters in read:
        if not masked:
            continue
        bits = -math.log2(lengths[len(own)] / lengths.total())
        for character, is_first, is_known in characters:
            alike = sum(n for (text, first, _), n in forms.items() if (text, first) == (plain(character), is_first))
            share = (
                forms[plain(character), is_first, character] / alike if is_known else 256.0 ** -len(character.encode())
            )
            bits -= math.log2(share)
        hidden = list(ids)
        for other, _, places, other_masked, _ in read:
            if other is window and other_masked:
                for place in places:
                    hidden[place] = tokenizer.mask_token_id
        for place in own:
            sequence = [tokenizer.cls_token_id, *hidden, tokenizer.sep_token_id]
            with torch.no_grad():
                chances = model(input_ids=torch.tensor([sequence])).logits[0, place + 1].log_softmax(-1)
            bits -= chances[ids[place]].item() / math.log(2)
            hidden[place] = ids[place]
        losses.append(bits)
    return np.array(losses)


def test_losses_per_byte_and_their_differences_are_those_of_a_slow_reading(compared, models, text):
    found = json.loads((compared[0] / "results.json").read_text())
    held = read_held_out([str(text)], ReadConfig(), 64, 200_000)
    windows, _ = cut_windows(held.passages, [open_pretrained(path).tokenizer for path in models.values()], 64)
    words = [word for window in windows for word, masked in zip(window.words, window.is_masked) if masked]
    sizes = np.array([len(word.encode()) for word in words])
    assert found["text"]["masked_words"] == len(words) > 80 and found["text"]["masked_bytes"] == sizes.sum()
    losses = {name: losses_by_hand(path, windows) for name, path in models.items()}
    for name, loss in losses.items():
        model = found["models"][name]
        assert model["bits_per_byte"] == pytest.approx(loss.sum() / sizes.sum(), rel=1e-5)
        assert model["nats_per_byte"] == pytest.approx(model["bits_per_byte"] * math.log(2))
        assert sum(model["parts_bits_per_byte"].values()) == pytest.approx(model["bits_per_byte"])
    for name in list(models)[1:]:
        difference = (losses[name] - losses["before"]).sum() / sizes.sum()
        assert found["differences"][name]["value"] == pytest.approx(difference, abs=1e-5)
        assert found["differences"][name]["margin"] > 0
    # The same tokenizer leaves the same open. One that distinguishes "P" from "p" needs no spelling.
    parts = {name: model["parts_bits_per_byte"] for name, model in found["models"].items()}
    assert parts["before"]["counts"] == parts["after"]["counts"] != parts["cased"]["counts"]
    assert parts["before"]["spelling"] == parts["after"]["spelling"] > 0
    assert found["models"]["cased"]["unknown_share"] > found["models"]["before"]["unknown_share"]


def test_one_command_writes_a_table_with_tasks_sizes_and_speed(compared, models, capsys):
    out, words = compared
    page, found = (out / "results.md").read_text(), json.loads((out / "results.json").read_text())
    assert page.startswith(found["verdict"]) and "feeling" in found["verdict"]
    rows = [
        [cell.strip(" *") for cell in line.strip("|\n").split("|")] for line in page.splitlines() if line[:1] == "|"
    ]
    assert rows[0] == ["", *models]
    cells = {row[0]: row[1:] for row in rows[2:]}
    bench = json.loads((out / "tasks/after/feeling/results.json").read_text())
    task = found["tasks"]["feeling"]
    assert task["num_rows"] == 20 and task["num_seeds"] == 2 and task["mean"]["after"] == bench["mean"]["accuracy"]
    expected = f"{bench['mean']['accuracy']:.3f} ± {bench['deviation']['accuracy']:.3f}"
    assert cells["feeling (accuracy, 20 rows, 2 seeds)"][1].replace("**", "") == expected
    assert cells["loss of the text, bits per byte"][2] == f"{found['models']['cased']['bits_per_byte']:.3f}"
    for name, path in models.items():
        model = found["models"][name]
        encoder = AutoModelForMaskedLM.from_pretrained(path).base_model
        assert model["parameters"] == sum(parameter.numel() for parameter in encoder.parameters())
        assert model["weights_bytes"] == (path / "model.safetensors").stat().st_size
        assert model["texts_per_second"] > 0 and model["tokens_per_second"] > model["texts_per_second"]
    # once more: nothing is measured or trained again
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name in ("after.json", "metrics.jsonl")}
    assert main(words) == 0 and page in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in before} and len(before) == 13


def test_a_kept_loss_of_other_weights_is_measured_again(models, text, tmp_path):
    def bits(after):
        pair = {"before": models["before"], "after": after}
        config = CompareConfig(models=tuple(words_of(pair)), text=(str(text),), out=tmp_path / "out", device="cpu")
        return compare(config).models["after"]["bits_per_byte"]

    first = bits(models["after"])
    assert bits(write_model(tmp_path / "other", num_hidden_layers=3)) != first == bits(models["after"])


def test_a_model_without_a_head_for_masked_words_has_no_loss_and_a_reason(models, text, tmp_path):
    folder = tmp_path / "bare"
    AutoModelForMaskedLM.from_pretrained(models["after"]).bert.save_pretrained(folder)
    AutoTokenizer.from_pretrained(models["after"]).save_pretrained(folder)
    config = CompareConfig(
        models=(str(models["before"]), str(folder)), text=(str(text),), out=tmp_path / "out", device="cpu"
    )
    found = compare(config)
    assert found.models["bare"]["bits_per_byte"] is None and found.models["bare"]["tokens_per_second"] > 0
    assert "| loss of the text, bits per byte | **" in found.page() and " | – |" in found.page()
    assert "bare has no loss: it is a BertModel, which has no head for masked words." in found.notes
    assert found.verdict() == "bare does not predict masked words, so losses on the text cannot be compared."


def test_windows_are_drawn_again_if_there_are_few_documents(models, tmp_path):
    one = write_jsonl(tmp_path / "one.jsonl", [{"text": " ".join(TEXTS)}])
    config = CompareConfig(
        models=tuple(words_of(models))[:2], text=(str(one),), out=tmp_path / "out", device="cpu", max_seq_length=32
    )
    found = compare(config)
    assert found.differences["after"].margin > 0 and found.text["max_seq_length"] == 32
    assert any(note.startswith("The text used has 1 document, so windows were drawn") for note in found.notes)


def test_mistakes_are_named_before_anything_is_measured(models, text, tasks, tmp_path):
    before, after = words_of(models)[:2]

    def refused(*words, message):
        with pytest.raises((ValueError, OSError), match=message):
            main([*map(str, words), "--out", str(tmp_path / "out")])
        assert not (tmp_path / "out").exists()

    refused(before, "--text", text, message="1 model: give at least two")
    refused(before, "random", "--text", text, message="random is a model of bench-tasks alone")
    refused(before, f"again={models['before']}", "--text", text, message="again and before are the same model")
    exported = tmp_path / "exported"
    AutoModelForPreTraining.from_pretrained(models["before"]).save_pretrained(exported)
    AutoTokenizer.from_pretrained(models["before"]).save_pretrained(exported)
    refused(before, exported, "--text", text, message="exported and before are the same model")
    refused(before, before, "--text", text, message="the name 'before' is reserved, used twice")
    refused(before, "nowhere", "--text", text, message="nowhere is no model")
    refused(before, after, "--text", tmp_path / "none.txt", message="--text .*none.txt")
    (tmp_path / "short.txt").write_text("a\n")
    refused(
        before, after, "--text", tmp_path / "short.txt", message="has 1 bytes, and none of its words is masked: give"
    )
    refused(
        before, after, "--text", text, "--max-seq-length", 65, message="above the 64 tokens that before was trained"
    )
    refused(before, after, "--text", text, "--max-seq-length", 15, message="max_seq_length=15 must be at least 16")
    refused(before, after, "--text", text, "--max-bytes", 0, message="max_bytes=0 must be at least 1")
    bad = tasks.with_name("bad.toml")
    bad.write_text(tasks.read_text() + '[last]\ntask = "classify"\ntrain = "train.jsonl"\ndev = "gone.jsonl"\n')
    refused(before, after, "--text", text, "--tasks", bad, message="gone.jsonl")
    folder = tmp_path / "no_words"
    AutoModelForMaskedLM.from_pretrained(models["after"]).save_pretrained(folder)
    refused(before, folder, "--text", text, message="no_words has neither tokenizer.json nor vocab.txt")


# ---- the verdict


def comparison(differences, tasks, bits=(2.0, 1.5)):
    models = {name: {"bits_per_byte": value} for name, value in zip(("old", "new"), bits)}
    return Comparison(text={}, models=models, differences=differences, tasks=tasks, notes=[])


def scores(mean, deviation, num_seeds=3):
    names = ("old", "new")
    return TaskScores(
        name="banking",
        metric="accuracy",
        num_rows=10,
        num_seeds=num_seeds,
        mean=dict(zip(names, mean)),
        deviation=dict(zip(names, deviation)),
    )


def test_a_difference_counts_if_its_interval_excludes_zero():
    clear, unclear = Difference(value=-0.5, margin=0.02), Difference(value=0.01, margin=0.02)
    assert comparison({"new": clear}, []).verdict() == (
        "new predicts this text better: 1.500 bits per byte against 2.000 of old, a difference of 0.500 ± 0.020 (95 %)."
    )
    assert comparison({"new": unclear}, [], (2.0, 2.01)).verdict() == (
        "old and new show no clear difference on this text: 2.000 and 2.010 bits per byte, "
        "a difference of 0.010 ± 0.020 (95 %)."
    )
    worse = Difference(value=0.3, margin=0.1)
    assert comparison({"new": worse}, [], (2.0, 2.3)).verdict().startswith("old predicts this text better: 2.000 bits")
    better = comparison({"new": clear}, [scores((0.8, 0.9), (0.01, 0.01))]).verdict()
    assert (
        "; on banking new is better than old (accuracy 0.900 against 0.800, +0.100 ± 0.023, 95 % over seeds)." in better
    )
    same = comparison({"new": clear}, [scores((0.8, 0.81), (0.01, 0.01))]).verdict()
    assert "on banking they show no clear difference (accuracy 0.810 against 0.800, +0.010 ± 0.023, " in same
    single = comparison({"new": clear}, [scores((0.8, 0.81), (), 1)]).verdict()
    assert (
        "on banking new is above old with one seed (accuracy 0.810 against 0.800), which shows no uncertainty" in single
    )


def test_the_margin_of_a_task_is_welchs():
    draw = np.random.default_rng(1)
    first, second = draw.normal(0.8, 0.01, 4), draw.normal(0.8, 0.03, 4)
    from scipy import stats

    interval = stats.ttest_ind(second, first, equal_var=False).confidence_interval(0.95)
    task = scores((first.mean(), second.mean()), (first.std(ddof=1), second.std(ddof=1)), 4)
    found = task.difference("new", "old")
    assert found.value - found.margin == pytest.approx(interval.low)
    assert found.value + found.margin == pytest.approx(interval.high)


def test_the_bootstrap_gives_the_standard_error_of_a_mean():
    losses = np.random.default_rng(2).normal(5, 2, 4000)
    sizes, groups = np.full(4000, 2), np.arange(4000) // 10  # 400 documents of ten words
    expected = losses.reshape(400, 10).mean(1).std() / math.sqrt(400) / 2
    found = deviation_of_mean(losses, sizes, groups)
    assert found == pytest.approx(expected, rel=0.1) and found == deviation_of_mean(losses, sizes, groups)
    assert deviation_of_mean(np.repeat([1.0, 3.0], 5), np.full(10, 1), np.repeat([0, 1], 5)) > 0.5
