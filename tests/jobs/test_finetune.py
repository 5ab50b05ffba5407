"""Fine-tuning runs: what they learn, what they write, and the options of training."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from transformers import pipeline

from jobs.finetune import FinetuneResult, finetune, main
from model.inference.predict import load
from tests.jobs.small_finetune import config, lines, weights
from tests.model.small_task import ROWS, sentiment_rows, write_jsonl


@pytest.mark.parametrize("task", ROWS)
def test_every_task_is_learnt_from_file_to_answer(task, encoder, task_files, tmp_path):
    result = finetune(
        config(encoder, task_files, tmp_path / "out", task, num_epochs=6.0, dropout=0.0, learning_rate=1e-2)
    )
    least = {"accuracy": 0.9, "pearson": 0.9, "f1": 0.7, "micro_f1": 0.85, "ndcg_at_10": 0.9}
    first = next(name for name in result.mean if name != "loss")
    assert result.mean[first] >= least[first], result.mean
    rows = [json.loads(line) for line in task_files[task][1].read_text().splitlines()]
    if task == "embed":
        rows = [{"text": row["query"]} for row in rows]
    answers = load(tmp_path / "out").predict(rows)
    if task == "embed":
        assert np.linalg.norm([answer["vector"] for answer in answers], axis=1) == pytest.approx(1)
    if task in ("classify", "pair"):
        right = sum(answer["label"] == row["label"] for row, answer in zip(rows, answers)) / len(rows)
        assert right == result.mean["accuracy"]
    if task == "choice":
        right = sum(answer["answer"] == row["answer"] for row, answer in zip(rows, answers)) / len(rows)
        assert right == result.mean["accuracy"]
    if task == "multilabel":
        found = [(set(row["labels"]), set(answer["labels"])) for row, answer in zip(rows, answers)]
        hits, sizes = sum(len(true & ours) for true, ours in found), sum(len(true) + len(ours) for true, ours in found)
        assert 2 * hits / sizes == pytest.approx(result.mean["micro_f1"], abs=1e-9)


def test_a_run_folder_explains_itself_and_transformers_uses_it(finetuned, encoder, task_files, tmp_path):
    assert sorted(path.name for path in finetuned.iterdir()) == [
        ".lock",
        "config.toml",
        "metrics.jsonl",
        "model",
        "results.json",
    ]
    assert sorted(path.name for path in (finetuned / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    train = [line for line in lines(finetuned) if line["split"] == "train"]
    assert [line["step"] for line in train] == list(range(1, 21))
    assert [line["step"] for line in lines(finetuned) if line["split"] == "validation"] == [10, 20]
    assert set(train[0]) == {"step", "split", "loss", "gradient_norm", "learning_rate", "tokens"}
    results = json.loads((finetuned / "results.json").read_text())
    wanted = (results["best_step"], "validation")
    measured = next(line for line in lines(finetuned) if (line["step"], line["split"]) == wanted)
    assert results["metrics"] == {k: v for k, v in measured.items() if k not in ("step", "split")}

    texts = [row["text"] for row in sentiment_rows(5, seed=3)]
    theirs = pipeline("text-classification", str(finetuned / "model"))(texts)
    for ours, other in zip(load(finetuned).predict(texts), theirs):
        assert ours["label"] == other["label"]
        assert ours["probabilities"][ours["label"]] == pytest.approx(other["score"], abs=1e-5)

    assert main([str(finetuned / "config.toml"), "--out", str(tmp_path / "again")]) == 0  # config.toml is a preset
    assert lines(tmp_path / "again") == lines(finetuned) and weights(tmp_path / "again") == weights(finetuned)


def test_starting_a_finished_run_again_changes_nothing(finetuned, encoder, task_files, capsys):
    before = (finetuned / "metrics.jsonl").read_bytes(), (finetuned / "results.json").read_bytes(), weights(finetuned)
    result = finetune(config(encoder, task_files, finetuned, save_every=3))
    assert f"{finetuned} is finished: accuracy" in capsys.readouterr().out
    assert (
        (finetuned / "metrics.jsonl").read_bytes(),
        (finetuned / "results.json").read_bytes(),
        weights(finetuned),
    ) == before
    assert isinstance(result, FinetuneResult) and result.exit_status == 0


def test_several_seeds_give_a_mean_a_deviation_and_the_best_model(encoder, task_files, finetuned, tmp_path, capsys):
    out = tmp_path / "out"
    result = finetune(config(encoder, task_files, out, seeds=(1, 2, 3), save_every=3))
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock",
        "config.toml",
        "model",
        "results.json",
        "seed-1",
        "seed-2",
        "seed-3",
    ]
    assert lines(out / "seed-1") == lines(finetuned) and weights(out / "seed-1") == weights(finetuned)
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
    again = finetune(config(encoder, task_files, out, seeds=(1, 2, 3), save_every=3))
    assert again.mean == result.mean and "seed-1 is finished" in capsys.readouterr().out
    fewer = finetune(config(encoder, task_files, out, seeds=(2, 3), save_every=3))
    assert json.loads((out / "results.json").read_text())["mean"] == fewer.mean
    with pytest.raises(ValueError, match="holds seed-., because it was started with several seeds: give several"):
        finetune(config(encoder, task_files, out, seeds=(1,), save_every=3))
    with pytest.raises(ValueError, match="holds metrics.jsonl, because it was started with one seed"):
        finetune(config(encoder, task_files, finetuned, seeds=(1, 2), save_every=3))


def test_the_best_model_is_kept_and_patience_ends_training(encoder, task_files, tmp_path):
    out = tmp_path / "out"
    result = finetune(config(encoder, task_files, out, num_epochs=10.0, eval_every=5, patience=2, learning_rate=1e-2))
    measured = [(line["step"], line["accuracy"]) for line in lines(out) if line["split"] == "validation"]
    best_step, best = max(measured, key=lambda pair: (pair[1], -pair[0]))
    assert result.seeds[0].best_step == best_step and result.seeds[0].metrics["accuracy"] == best
    assert result.seeds[0].step == best_step + 10 < 100


def test_the_learning_rate_is_chosen_by_the_width_of_the_model_and_printed(encoder, task_files, tmp_path, capsys):
    short = {"num_epochs": 0.5, "warmup_steps": 2}
    finetune(config(encoder, task_files, tmp_path / "auto", learning_rate="auto", **short))
    assert "peak learning rate 0.001, chosen for a width of 32" in capsys.readouterr().out
    finetune(config(encoder, task_files, tmp_path / "stated", learning_rate=1e-3, **short))
    assert "peak learning rate 0.001\n" in capsys.readouterr().out
    assert weights(tmp_path / "auto") == weights(tmp_path / "stated")
    rates = [line["learning_rate"] for line in lines(tmp_path / "auto") if line["split"] == "train"]
    assert rates[:3] == pytest.approx([5e-4, 1e-3, 1e-3])


def test_fine_tuning_in_fp16_learns_as_in_fp32(encoder, task_files, tmp_path):
    losses = []
    for precision in ("fp32", "fp16"):
        finetune(config(encoder, task_files, tmp_path / precision, num_epochs=1.0, precision=precision))
        losses.append([line["loss"] for line in lines(tmp_path / precision) if line["split"] == "train"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


def test_a_flag_names_the_metric_that_chooses_the_best_model(encoder, task_files, tmp_path):
    with pytest.raises(
        ValueError, match="metric='bleu' is not a metric of classify: expected one of accuracy, macro_f1, matthews"
    ):
        finetune(config(encoder, task_files, tmp_path / "a", metric="bleu"))
    result = finetune(config(encoder, task_files, tmp_path / "b", metric="macro_f1", eval_every=4))
    measured = [line["macro_f1"] for line in lines(tmp_path / "b") if line["split"] == "validation"]
    assert result.seeds[0].metrics["macro_f1"] == max(measured)


def test_frozen_layers_keep_their_weights_and_layer_decay_slows_lower_layers(encoder, task_files, tmp_path):
    from model.hub.pretrained import open_pretrained

    finetune(config(encoder, task_files, tmp_path / "frozen", frozen_layers=1))
    before, after = open_pretrained(encoder).weights, open_pretrained(tmp_path / "frozen").weights
    changed = {name for name in after if name in before and not after[name].equal(before[name])}
    assert changed == {name for name in after if name in before and ("layer.1." in name or "pooler" in name)}

    def change_of(out: Path, name: str) -> float:
        return float((open_pretrained(out).weights[name] - before[name]).abs().mean())

    finetune(config(encoder, task_files, tmp_path / "decay", layer_decay=0.1))
    finetune(config(encoder, task_files, tmp_path / "even", layer_decay=1.0))
    name = "bert.encoder.layer.0.output.dense.weight"  # one below the last layer: 0.1 x 0.1 of the rate
    assert change_of(tmp_path / "decay", name) < 0.1 * change_of(tmp_path / "even", name)


def test_class_weights_shift_what_is_predicted(encoder, task_files, tmp_path):
    rows = [row | {"text": "film"} for row in sentiment_rows(150)]  # nothing to tell the classes by
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    for weight, label in (("bad=9", "bad"), ("good=9", "good")):
        out = tmp_path / weight
        finetune(config(encoder, task_files, out, train=train, class_weights=(weight,)))
        assert load(out).predict(["film"])[0]["label"] == label
    with pytest.raises(ValueError, match="class_weights: 'worse' is not a label: expected one of bad, good"):
        finetune(config(encoder, task_files, tmp_path / "x", class_weights=("worse=2",)))


def test_balanced_weights_are_those_of_scikit_learn(encoder, task_files):
    import numpy as np
    from sklearn.utils.class_weight import compute_class_weight

    from jobs.finetune import prepare

    job = prepare(config(encoder, task_files, Path("x"), "tag", class_weights=("balanced",)))
    labels = job.train.labels
    expected = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    np.testing.assert_allclose(job.train.weights, expected[labels], rtol=1e-6)


def test_long_texts_are_read_in_windows(encoder, task_files, tmp_path):
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
    whole = finetune(config(encoder, task_files, tmp_path / "whole", **values))
    cut = finetune(config(encoder, task_files, tmp_path / "cut", max_windows=1, **values))
    assert whole.mean["accuracy"] > 0.9 and cut.mean["accuracy"] < 0.7  # what tells the class stands in the middle
