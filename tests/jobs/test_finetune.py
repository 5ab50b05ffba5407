import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import pipeline

from jobs.cli import main as cli
from jobs.finetune import FinetuneConfig, FinetuneResult, finetune, main
from jobs.support.config import parse
from jobs.support.finetune_config import pairs
from model.inference.predict import load
from model.runs.metrics import TIMING_KEYS, read_metrics
from tests.forked import DEVNULL, Forked
from tests.model.small_task import ROWS, sentiment_rows, write_jsonl, write_model


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, tuple[Path, Path]]:
    """Training and dev rows of each task."""
    folder = tmp_path_factory.mktemp("rows")
    return {
        task: (
            write_jsonl(folder / f"{task}.jsonl", rows(160)),
            write_jsonl(folder / f"{task}-dev.jsonl", rows(40, seed=9)),
        )
        for task, rows in ROWS.items()
    }


def config(encoder: Path, files, out: Path, task: str = "classify", **changes) -> FinetuneConfig:
    train, dev = files[task]
    values = {"num_epochs": 2.0, "batch_size": 16, "learning_rate": 3e-3, "device": "cpu", "num_threads": 1}
    return FinetuneConfig(**{"task": task, "model": encoder, "train": train, "dev": dev, "out": out} | values | changes)


def lines(out: Path) -> list[dict]:
    """The metrics without what depends on the clock."""
    return [{k: v for k, v in line.items() if k not in TIMING_KEYS} for line in read_metrics(out / "metrics.jsonl")]


def weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def unbroken(encoder, files, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    finetune(config(encoder, files, out, save_every=3))
    return out


@pytest.mark.parametrize("task", ROWS)
def test_every_task_is_learnt_from_file_to_answer(task, encoder, files, tmp_path):
    result = finetune(config(encoder, files, tmp_path / "out", task, num_epochs=6.0, dropout=0.0, learning_rate=1e-2))
    least = {"accuracy": 0.9, "pearson": 0.9, "f1": 0.7}
    first = next(name for name in result.mean if name != "loss")
    assert result.mean[first] >= least[first], result.mean
    rows = [json.loads(line) for line in files[task][1].read_text().splitlines()]
    answers = load(tmp_path / "out").predict(rows)
    if task in ("classify", "pair"):
        right = sum(answer["label"] == row["label"] for row, answer in zip(rows, answers)) / len(rows)
        assert right == result.mean["accuracy"]


def test_a_run_folder_explains_itself_and_transformers_uses_it(unbroken, encoder, files, tmp_path):
    assert sorted(path.name for path in unbroken.iterdir()) == [
        ".lock",
        "config.toml",
        "metrics.jsonl",
        "model",
        "results.json",
    ]
    assert sorted(path.name for path in (unbroken / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    train = [line for line in lines(unbroken) if line["split"] == "train"]
    assert [line["step"] for line in train] == list(range(1, 21))
    assert [line["step"] for line in lines(unbroken) if line["split"] == "validation"] == [10, 20]
    assert set(train[0]) == {"step", "split", "loss", "gradient_norm", "learning_rate", "tokens"}
    results = json.loads((unbroken / "results.json").read_text())
    wanted = (results["best_step"], "validation")
    measured = next(line for line in lines(unbroken) if (line["step"], line["split"]) == wanted)
    assert results["metrics"] == {k: v for k, v in measured.items() if k not in ("step", "split")}

    texts = [row["text"] for row in sentiment_rows(5, seed=3)]
    theirs = pipeline("text-classification", str(unbroken / "model"))(texts)
    for ours, other in zip(load(unbroken).predict(texts), theirs):
        assert ours["label"] == other["label"]
        assert ours["probabilities"][ours["label"]] == pytest.approx(other["score"], abs=1e-5)

    assert main([str(unbroken / "config.toml"), "--out", str(tmp_path / "again")]) == 0  # config.toml is a preset
    assert lines(tmp_path / "again") == lines(unbroken) and weights(tmp_path / "again") == weights(unbroken)


def test_a_finished_run_started_again_says_so_and_changes_nothing(unbroken, encoder, files, capsys):
    before = (unbroken / "metrics.jsonl").read_bytes(), (unbroken / "results.json").read_bytes(), weights(unbroken)
    result = finetune(config(encoder, files, unbroken, save_every=3))
    assert f"{unbroken} is finished: accuracy" in capsys.readouterr().out
    assert (
        (unbroken / "metrics.jsonl").read_bytes(),
        (unbroken / "results.json").read_bytes(),
        weights(unbroken),
    ) == before
    assert isinstance(result, FinetuneResult) and result.exit_status == 0


def start(encoder: Path, files, out: Path) -> Forked:
    """`bertloom finetune` in a process of its own, as in `unbroken`."""
    train, dev = files["classify"]
    words = ["finetune", "--task", "classify", "--model", encoder, "--train", train, "--dev", dev, "--out", out]
    words += ["--num-epochs", "2", "--batch-size", "16", "--learning-rate", "3e-3", "--device", "cpu"]
    words += ["--num-threads", "1", "--save-every", "3"]
    code = "import sys; from jobs.cli import main; sys.exit(main(sys.argv[1:]))"
    return Forked(code, *map(str, words), stderr=DEVNULL)


def kill_at(process: Forked, out: Path, number: int, kind: int) -> None:
    """Sends a signal as soon as metrics.jsonl has so many lines."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        path = out / "metrics.jsonl"
        if path.exists() and path.read_bytes().count(b"\n") >= number:
            process.send_signal(kind)
            return
        time.sleep(0.001)
    raise AssertionError("it ended before it could be stopped")


def test_killed_or_told_to_stop_and_started_again_it_gives_the_numbers_of_an_unbroken_run(
    unbroken, encoder, files, tmp_path
):
    out = tmp_path / "run"
    process = start(encoder, files, out)
    kill_at(process, out, 5, signal.SIGKILL)
    process.communicate()
    process = start(encoder, files, out)
    kill_at(process, out, 8, signal.SIGTERM)
    text, _ = process.communicate()
    assert process.returncode == 143 and "stopped by SIGTERM at step" in text
    process = start(encoder, files, out)
    text, _ = process.communicate()
    assert process.returncode == 0 and "resuming at step" in text
    assert lines(out) == lines(unbroken) and weights(out) == weights(unbroken)
    assert json.loads((out / "results.json").read_text()) == json.loads((unbroken / "results.json").read_text())


# In a process of its own, which is forked once for every stage: exit after the stage-th thing done to the file system.
KILLER = """
import os, shutil, sys
import sklearn.metrics  # once, not in every fork
from jobs.finetune import main
import model.runs.checkpoint, model.hub.weights
left = 10**9
def counted(f):
    def call(*args, **kwargs):
        global left
        result = f(*args, **kwargs)
        left -= 1
        if left == 0:
            os._exit(9)
        return result
    return call
os.rename, os.replace, shutil.rmtree = counted(os.rename), counted(os.replace), counted(shutil.rmtree)
for module in (model.runs.checkpoint, model.hub.weights):
    module.save_file = counted(module.save_file)
out, words = sys.argv[1], sys.argv[2:]
stage, alive = 0, True
while alive:
    stage += 1
    child = os.fork()
    if child == 0:
        left = stage
        sys.stdout = sys.stderr = open(os.devnull, "w")
        os._exit(main([*words, "--out", f"{out}/{stage}"]))
    alive = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    if os.fork() == 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")
        os._exit(main([*words, "--out", f"{out}/{stage}"]))
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0, stage
print(stage)
"""


def test_killed_after_any_change_of_its_folder_the_next_start_does_the_rest(encoder, files, tmp_path):
    train, dev = files["classify"]
    flags = ["--task", "classify", "--model", encoder, "--train", train, "--dev", dev, "--num-epochs", "0.3"]
    flags += ["--batch-size", "16", "--learning-rate", "3e-3", "--device", "cpu", "--num-threads", "1"]
    flags += ["--eval-every", "2"]
    done = subprocess.run(
        [sys.executable, "-c", KILLER, tmp_path, *flags],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"TOKENIZERS_PARALLELISM": "false"},
    )
    assert done.returncode == 0, done.stderr
    last = int(done.stdout)
    assert last > 15, "it was stopped at many places"
    for stage in range(1, last):
        assert lines(tmp_path / str(stage)) == lines(tmp_path / str(last)), stage
        assert weights(tmp_path / str(stage)) == weights(tmp_path / str(last)), stage
        names = sorted(path.name for path in (tmp_path / str(stage)).iterdir())
        assert names == [".lock", "config.toml", "metrics.jsonl", "model", "results.json"], stage


def test_several_seeds_give_a_mean_a_deviation_and_the_best_model(encoder, files, unbroken, tmp_path, capsys):
    out = tmp_path / "out"
    result = finetune(config(encoder, files, out, seeds=(1, 2, 3), save_every=3))
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock",
        "config.toml",
        "model",
        "results.json",
        "seed-1",
        "seed-2",
        "seed-3",
    ]
    assert lines(out / "seed-1") == lines(unbroken) and weights(out / "seed-1") == weights(unbroken)
    assert lines(out / "seed-2") != lines(out / "seed-1")
    values = [seed.metrics["accuracy"] for seed in result.seeds]
    mean = sum(values) / 3
    assert result.mean["accuracy"] == pytest.approx(mean)
    assert result.deviation["accuracy"] == pytest.approx((sum((v - mean) ** 2 for v in values) / 2) ** 0.5)
    results = json.loads((out / "results.json").read_text())
    assert results["mean"] == result.mean and results["deviation"] == result.deviation
    best = max(result.seeds, key=lambda seed: seed.metrics["accuracy"])
    assert results["best_seed"] == best.seed and weights(out) == weights(out / f"seed-{best.seed}")
    assert f"3 seeds: accuracy {mean:.4f} ± " in capsys.readouterr().out
    assert load(out).predict(["a good film"])[0]["label"] in ("good", "bad")

    shutil.rmtree(out / "seed-2")  # what is not finished is done again, the rest is not
    (out / "results.json").unlink()
    again = finetune(config(encoder, files, out, seeds=(1, 2, 3), save_every=3))
    assert again.mean == result.mean and "seed-1 is finished" in capsys.readouterr().out
    fewer = finetune(config(encoder, files, out, seeds=(2, 3), save_every=3))
    assert json.loads((out / "results.json").read_text())["mean"] == fewer.mean
    with pytest.raises(ValueError, match="holds seed-., because it was started with several seeds: give several"):
        finetune(config(encoder, files, out, seeds=(1,), save_every=3))
    with pytest.raises(ValueError, match="holds metrics.jsonl, because it was started with one seed"):
        finetune(config(encoder, files, unbroken, seeds=(1, 2), save_every=3))


def test_the_best_model_is_kept_and_patience_ends_training(encoder, files, tmp_path):
    out = tmp_path / "out"
    result = finetune(config(encoder, files, out, num_epochs=10.0, eval_every=5, patience=2, learning_rate=1e-2))
    measured = [(line["step"], line["accuracy"]) for line in lines(out) if line["split"] == "validation"]
    best_step, best = max(measured, key=lambda pair: (pair[1], -pair[0]))
    assert result.seeds[0].best_step == best_step and result.seeds[0].metrics["accuracy"] == best
    assert result.seeds[0].step == best_step + 10 < 100


def test_the_metric_that_the_best_is_chosen_by_can_be_named(encoder, files, tmp_path):
    with pytest.raises(
        ValueError, match="metric='bleu' is not a metric of classify: expected one of accuracy, macro_f1, matthews"
    ):
        finetune(config(encoder, files, tmp_path / "a", metric="bleu"))
    result = finetune(config(encoder, files, tmp_path / "b", metric="macro_f1", eval_every=4))
    measured = [line["macro_f1"] for line in lines(tmp_path / "b") if line["split"] == "validation"]
    assert result.seeds[0].metrics["macro_f1"] == max(measured)


def test_frozen_layers_stay_and_lower_layers_learn_less_by_layer_decay(encoder, files, tmp_path):
    from model.hub.pretrained import open_pretrained

    finetune(config(encoder, files, tmp_path / "frozen", frozen_layers=1))
    before, after = open_pretrained(encoder).weights, open_pretrained(tmp_path / "frozen").weights
    changed = {name for name in after if name in before and not after[name].equal(before[name])}
    assert changed == {name for name in after if name in before and ("layer.1." in name or "pooler" in name)}

    def change_of(out: Path, name: str) -> float:
        return float((open_pretrained(out).weights[name] - before[name]).abs().mean())

    finetune(config(encoder, files, tmp_path / "decay", layer_decay=0.1))
    finetune(config(encoder, files, tmp_path / "even", layer_decay=1.0))
    name = "bert.encoder.layer.0.output.dense.weight"  # one below the last layer: 0.1 x 0.1 of the rate
    assert change_of(tmp_path / "decay", name) < 0.1 * change_of(tmp_path / "even", name)


def test_class_weights_shift_what_is_predicted(encoder, files, tmp_path):
    rows = [row | {"text": "film"} for row in sentiment_rows(150)]  # nothing to tell the classes by
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    for weight, label in (("bad=9", "bad"), ("good=9", "good")):
        out = tmp_path / weight
        finetune(config(encoder, files, out, train=train, class_weights=(weight,)))
        assert load(out).predict(["film"])[0]["label"] == label
    with pytest.raises(ValueError, match="class_weights: 'worse' is not a label: expected one of bad, good"):
        finetune(config(encoder, files, tmp_path / "x", class_weights=("worse=2",)))


def test_balanced_weights_are_those_of_scikit_learn(encoder, files):
    import numpy as np
    from sklearn.utils.class_weight import compute_class_weight

    from jobs.finetune import prepare

    job = prepare(config(encoder, files, Path("x"), "tag", class_weights=("balanced",)))
    labels = job.train.labels
    expected = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    np.testing.assert_allclose(job.train.weights, expected[labels], rtol=1e-6)


def test_long_texts_are_read_in_windows(encoder, files, tmp_path):
    rows = [{"text": "film " * 9 + row["label"] + " film" * 9, "label": row["label"]} for row in sentiment_rows(128)]
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    values = {
        "train": train,
        "dev": train,
        "max_seq_length": 8,
        "num_epochs": 6.0,
        "learning_rate": 1e-2,
        "dropout": 0.0,
    }
    whole = finetune(config(encoder, files, tmp_path / "whole", **values))
    cut = finetune(config(encoder, files, tmp_path / "cut", max_windows=1, **values))
    assert whole.mean["accuracy"] > 0.9 and cut.mean["accuracy"] < 0.7  # what tells the class stands in the middle


def test_bad_rows_stop_it_or_are_left_out_counted_and_written_down(encoder, files, tmp_path, capsys):
    rows = sentiment_rows(40) + [{"text": "", "label": "good"}]
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    dev = write_jsonl(tmp_path / "dev.jsonl", [*sentiment_rows(10), {"text": "film", "label": "ugly"}])
    message = "train.jsonl: 1 of 41 rows cannot be used: line 41: text is empty"
    with pytest.raises(ValueError, match=message):
        finetune(config(encoder, files, tmp_path / "out", train=train, dev=dev))
    message = "dev.jsonl: 1 of 11 rows cannot be used: line 11: label 'ugly' is none of the 2 labels: bad, good"
    with pytest.raises(ValueError, match=message):
        finetune(config(encoder, files, tmp_path / "out", dev=dev))
    finetune(config(encoder, files, tmp_path / "out", train=train, dev=dev, on_bad_row="skip"))
    assert "train: 40 rows, 40 sequences" in (text := capsys.readouterr().out)
    assert "dev: 10 rows" in text and text.count("1 bad rows skipped, see") == 2
    rejected = [json.loads(line) for line in (tmp_path / "out/bad_rows.jsonl").read_text().splitlines()]
    assert [(row["place"], row["reason"]) for row in rejected] == [
        ("line 41", "text is empty"),
        ("line 11", "label 'ugly' is none of the 2 labels: bad, good"),
    ]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"max_seq_length": 65}, "max_seq_length=65 is more than"),
        ({"frozen_layers": 3}, "frozen_layers=3, but"),
        ({"stride": 63}, "stride=63 is above the 62 tokens of text in a window"),
        ({"stride": 15, "max_seq_length": 16}, "stride=15 is above the 14 tokens of text in a window"),
        ({"columns": ("text=review",)}, "there is no column 'review' for text: it has text, label"),
        ({"task": "pair"}, "no column is found for text_a"),
        ({"labels": ("good", "fine")}, "label 'bad' is none of the 2 labels: good, fine"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(encoder, files, tmp_path, changes, message):
    rows = [{"text": "good " * 100, "label": "good"}, {"text": "bad", "label": "bad"}]
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    with pytest.raises(ValueError, match=re.escape(message)):
        finetune(config(encoder, files, tmp_path / "out", **{"train": train} | changes))
    assert not (tmp_path / "out").exists()


def test_regress_of_two_texts_takes_no_flags_for_windows(encoder, files, tmp_path):
    rows = [{"a": "good", "b": "film", "label": number} for number in range(4)]
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    with pytest.raises(
        ValueError, match="stride=4: two texts share one sequence, and regress reads no windows of them"
    ):
        finetune(config(encoder, files, tmp_path / "out", "regress", train=train, dev=train, stride=4))
    assert not (tmp_path / "out").exists()


def test_a_model_that_knows_one_segment_reads_no_pairs(files, tmp_path):
    model = write_model(tmp_path / "model", type_vocab_size=1)
    with pytest.raises(ValueError, match="has one token type, but pair reads two segments"):
        finetune(config(model, files, tmp_path / "out", "pair"))


def test_one_label_alone_teaches_nothing(encoder, files, tmp_path):
    train = write_jsonl(tmp_path / "train.jsonl", [{"text": "a", "label": "x"}] * 5)
    with pytest.raises(ValueError, match="all 5 rows have the label 'x': expected at least two labels"):
        finetune(config(encoder, files, tmp_path / "out", train=train))


def test_a_run_cannot_be_changed_on_the_way_nor_written_over_another(unbroken, encoder, files, tmp_path):
    out = shutil.copytree(unbroken, tmp_path / "out")
    for changes, message in (
        (
            {"learning_rate": 1e-3},
            "learning_rate is 0.001, but this run began with 0.003: resume with 0.003, or give a new --out",
        ),
        ({"train": files["classify"][1]}, "train is [0-9a-f]{64}, but .* began with"),
        ({"seeds": (2,)}, "seed is 2, but"),
    ):
        with pytest.raises(ValueError, match=message):
            finetune(config(encoder, files, out, **changes))
    assert (out / "config.toml").read_bytes() == (unbroken / "config.toml").read_bytes()
    with pytest.raises(ValueError, match="is the model itself: give a new folder as --out"):
        finetune(config(encoder, files, encoder))
    (tmp_path / "pretraining").mkdir()
    (tmp_path / "pretraining/config.toml").write_text("data = 'x'\n")
    with pytest.raises(ValueError, match="is a run of another command: give a new folder as --out"):
        finetune(config(encoder, files, tmp_path / "pretraining"))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"num_epochs": 0.0}, "num_epochs=0 must be above 0"),
        ({"dropout": 1.0}, "dropout=1 must be at least 0 and below 1"),
        ({"max_seq_length": 4}, "max_seq_length=4 must be at least 8"),
        ({"frozen_layers": -1}, "frozen_layers=-1 must be at least 0"),
        ({"seeds": (1, 1)}, "seeds=(1, 1) must be distinct numbers"),
        ({"labels": ("a",)}, "labels=a must be at least two distinct classes"),
        (
            {"task": "span", "class_weights": ("balanced",)},
            "span has no classes: omit --labels and --class-weights",
        ),
        ({"columns": ("text",)}, "columns: 'text' is not of the form NAME=VALUE"),
        ({"class_weights": ("good=-1",)}, "class_weights: good=-1: expected a number above 0"),
        ({"task": "pair", "stride": 4}, "stride=4: two texts share one sequence, and pair reads no windows of them"),
        ({"task": "pair", "max_windows": 1}, "max_windows=1: two texts share one sequence"),
        ({"task": "tag", "max_windows": 2}, "max_windows: every word gets a tag"),
    ],
)
def test_impossible_choices_are_refused(encoder, files, tmp_path, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        finetune(config(encoder, files, tmp_path / "out", **changes))


def test_labels_and_columns_may_hold_an_equals_sign():
    assert pairs("class_weights", ("a=b=2", "c=1")) == {"a=b": "2", "c": "1"}


def test_a_loss_that_is_no_number_stops_with_advice(encoder, files, tmp_path):
    with pytest.raises(ValueError, match="at step [0-9]+ the loss is .*: use a learning_rate below"):
        finetune(config(encoder, files, tmp_path / "out", learning_rate=1e20, warmup_ratio=0.0, max_gradient_norm=1e9))


def test_the_command_shows_its_flags_and_an_error_in_a_line(encoder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse(FinetuneConfig, ["--help"], prog="bertloom finetune")
    assert "--class-weights" in capsys.readouterr().out
    words = [
        "finetune",
        "--task",
        "classify",
        "--model",
        str(encoder),
        "--train",
        "nothing.csv",
        "--dev",
        "nothing.csv",
    ]
    assert cli([*words, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "bertloom finetune: error: nothing.csv: No such file or directory\n"
