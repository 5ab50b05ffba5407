"""What a run's length, warm-up, Adam constants, early end, precision and origin follow from."""

import json
import re
from pathlib import Path

import pytest

from jobs.pretrain import pretrain
from jobs.support.config import dump, parse
from jobs.support.pretrain_config import PretrainConfig
from jobs.verify import verify_run
from model.bert_config import BertShape
from model.runs.progress import Progress
from model.runs.state import TrainingState, read_state
from model.schedule import parse_budget
from model.step import evaluate, train_step
from tests.jobs.small_run import TINY, learnt, make_data, make_run, numbers, run_config, train_lines

PARSED = ["--data", "DATA", "--out", "OUT"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("options") / "set")


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("options") / "run"
    pretrain(run_config(data, out, num_steps=8))
    return out


def parsed(*words: str) -> PretrainConfig:
    return parse(PretrainConfig, [*words, *PARSED], "bertloom pretrain")


def test_a_flag_for_the_length_of_training_replaces_the_presets(tmp_path):
    preset = tmp_path / "timed.toml"
    preset.write_text('budget = "3m"\n')
    assert parsed("tiny", str(preset)).length_of_training() == ("seconds", 180)
    assert parsed("tiny", str(preset), "--num-steps", "7").length_of_training() == ("steps", 7)
    assert parsed("tiny", "--num_epochs=2").length_of_training() == ("epochs", 2)
    assert parsed(str(preset), "tiny").length_of_training()[0] == "steps", "the later preset counts"


def test_a_run_folders_configuration_can_be_given_another_length(tmp_path):
    (tmp_path / "config.toml").write_text(
        dump(parsed("tiny", "--num-tokens", "1000", "--phases", "128:0.9", "512:0.1"))
    )
    again = parsed(str(tmp_path / "config.toml"), "--budget", "2h", "--max-seq-length", "128")
    assert again.length_of_training() == ("seconds", parse_budget("2h"))
    assert (again.max_seq_length, again.phases) == (128, ())


@pytest.mark.parametrize(
    "words, names",
    [
        (["--num-steps", "7", "--budget", "3m"], "num_steps and budget"),
        (["--warmup-steps", "7", "--warmup-ratio", "0.1"], "warmup_ratio and warmup_steps"),
        (["--phases", "128:1", "--max-seq-length", "128"], "max_seq_length and phases"),
    ],
)
def test_two_alternatives_in_one_command_or_one_preset_are_refused(words, names, tmp_path):
    with pytest.raises(ValueError, match=f"^the flags: {names} are alternatives: give only one of"):
        parsed("tiny", *words)


def test_two_lengths_in_one_preset_are_refused(tmp_path):
    preset = tmp_path / "both.toml"
    preset.write_text('budget = "3m"\nnum_steps = 5\n')
    with pytest.raises(ValueError, match=rf"{re.escape(str(preset))}: num_steps and budget are alternatives"):
        parsed(str(preset))


def test_epochs_are_passes_over_one_copy_each(tmp_path):
    two_copies = make_data(tmp_path / "set", rows=(100, 80))
    for epochs, steps in ((1.0, 7), (1.5, 9), (2.0, 12)):  # of 100, 100 + 40 and 180 examples, 16 at a time
        result = pretrain(run_config(two_copies, tmp_path / f"run{epochs}", num_epochs=epochs))
        assert result.step == steps


def test_a_warm_up_in_steps_reaches_the_peak_there(data, tmp_path):
    pretrain(run_config(data, tmp_path / "run", num_steps=6, warmup_steps=3))
    rates = [line["learning_rate"] for line in train_lines(tmp_path / "run")]
    assert rates == pytest.approx([1e-3, 2e-3, 3e-3, 3e-3, 2e-3, 1e-3])


def test_adams_constants_change_the_run_and_belong_to_its_settings(data, unbroken, tmp_path):
    changed = {"adam_beta1": 0.8, "adam_beta2": 0.9, "adam_epsilon": 1e-3}
    pretrain(run_config(data, tmp_path / "run", num_steps=8, **changed))
    assert learnt(tmp_path / "run") != learnt(unbroken)
    pretrain(run_config(data, tmp_path / "same", num_steps=8, adam_beta1=0.9, adam_beta2=0.98, adam_epsilon=1e-6))
    assert learnt(tmp_path / "same") == learnt(unbroken)
    with pytest.raises(ValueError, match="adam_beta1 is None, but this run began with 0.8"):
        pretrain(run_config(data, tmp_path / "run", num_steps=8))


def test_patience_ends_a_run_whose_validation_loss_no_longer_falls(data, tmp_path):
    chosen = {"num_steps": 40, "learning_rate": 1e-9, "eval_every": 2, "save_every": 2, "patience": 3}
    result = pretrain(run_config(data, tmp_path / "run", **chosen))
    state = read_state(result.checkpoint, TrainingState)
    assert result.step < 40 and state.best.num_worse == 3
    assert pretrain(run_config(data, tmp_path / "run", **chosen)).step == result.step, "it is finished"
    with pytest.raises(
        ValueError, match="where this training has ended: give a larger --patience, and --allow-change pat"
    ):
        pretrain(run_config(data, tmp_path / "branch", **chosen, resume_from=result.checkpoint))


def test_a_checkpoint_of_another_run_is_continued_as_that_run_would_have_been(data, unbroken, tmp_path):
    checkpoint = unbroken / "checkpoints" / "step-00000004"
    before = {path: path.read_bytes() for path in sorted(unbroken.rglob("*")) if path.is_file()}
    pretrain(run_config(data, tmp_path / "branch", num_steps=8, resume_from=checkpoint))
    assert numbers(tmp_path / "branch") == numbers(unbroken)
    assert learnt(tmp_path / "branch") == learnt(unbroken)
    assert verify_run(tmp_path / "branch")[0] == []
    longer = {"num_steps": 10, "allow_change": ("num_steps",), "resume_from": checkpoint}
    assert pretrain(run_config(data, tmp_path / "longer", **longer)).step == 10
    assert {path: path.read_bytes() for path in sorted(unbroken.rglob("*")) if path.is_file()} == before
    last = unbroken / "checkpoints" / "step-00000008"
    for name, value in {"num_steps": 8, "num_epochs": 0.01, "num_tokens": 10}.items():
        over = {name: value, "allow_change": ("num_steps", name), "resume_from": last}
        flag = name.replace("_", "-")
        with pytest.raises(
            ValueError, match=f"is at step 8, where this training has ended: give a larger --{flag}, and"
        ):
            pretrain(run_config(data, tmp_path / "over", **over))
    with pytest.raises(ValueError, match="is not a checkpoint: expected a folder such as RUN/checkpoints/step-0000"):
        pretrain(run_config(data, tmp_path / "none", num_steps=8, resume_from=unbroken))


def test_in_fp16_a_run_learns_as_in_fp32_and_resumes_with_its_loss_scale(data, unbroken, tmp_path):
    result = pretrain(run_config(data, tmp_path / "run", num_steps=8, precision="fp16"))
    for half, single in zip(train_lines(tmp_path / "run"), train_lines(unbroken)):
        assert half["loss"] == pytest.approx(single["loss"], rel=2e-3)
    state = read_state(result.checkpoint, TrainingState)
    assert state.progress.loss_scale == 2**16 and state.progress.scale_steps == 8
    cut = {"num_steps": 8, "precision": "fp16", "resume_from": tmp_path / "run/checkpoints/step-00000004"}
    pretrain(run_config(data, tmp_path / "cut", **cut))
    assert learnt(tmp_path / "cut") == learnt(tmp_path / "run")


def test_an_overflow_in_fp16_halves_the_loss_scale_and_is_no_bad_step(data, tmp_path, monkeypatch):
    monkeypatch.setattr("model.precision.FIRST_LOSS_SCALE", 2.0**60)
    pretrain(run_config(data, tmp_path / "run", num_steps=6, precision="fp16"))
    lines = [json.loads(text) for text in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["split"] == "train"]
    assert [line["loss_scale"] for line in trained[:2]] == [2.0**59, 2.0**58]
    assert trained[0]["skipped"] and not (tmp_path / "run/bad_steps.jsonl").exists()


def test_the_loss_scale_doubles_after_two_thousand_steps_without_overflow():
    progress = Progress(loss_scale=8.0)
    for _ in range(1999):
        progress = progress.after_step(num_tokens=1, seconds=0.0, loss=1.0)
    assert progress.loss_scale == 8
    assert progress.after_step(num_tokens=1, seconds=0.0, loss=1.0).loss_scale == 16
    assert progress.after_step(num_tokens=1, seconds=0.0, loss=None).loss_scale == 4
    assert Progress().after_step(num_tokens=1, seconds=0.0, loss=None).loss_scale is None


def test_a_budget_ends_early_enough_for_the_longest_evaluation(data, tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    evaluations = []

    def slow_evaluation(*arguments, **options):
        clock[0] += 10
        evaluations.append(clock[0])
        return evaluate(*arguments, **options)

    def slow_step(*arguments, **options):
        clock[0] += 1
        return train_step(*arguments, **options)

    monkeypatch.setattr("jobs.support.pretraining.evaluate", slow_evaluation)
    monkeypatch.setattr("jobs.support.pretraining.train_step", slow_step)
    result = pretrain(run_config(data, tmp_path / "run", budget="40s"))
    assert result.step == 20 and evaluations == [10, 40], "20 steps between two evaluations of 10 s"
    assert pretrain(run_config(data, tmp_path / "run", budget="40s")).step == 20


def test_the_result_of_a_run_is_its_last_whole_evaluation(data, tmp_path):
    run = make_run(data, tmp_path / "run", eval_every=3)
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text().splitlines()
    last = max(number for number, line in enumerate(lines) if '"split": "validation"' in line)
    lines[last] = lines[last].replace('"nsp_loss"', '"nsp_lost"')
    metrics.write_text("\n".join(lines) + "\n")
    evaluations = [line for line in numbers(run) if line["split"] == "validation"]
    assert pretrain(run_config(data, run, eval_every=3)).validation["nsp_loss"] == evaluations[-2]["nsp_loss"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({}, "--cuda-graphs needs FlashAttention on a GPU"),
        ({"model": BertShape(**vars(TINY) | {"normalization": "batch"}), "micro_batch_size": 16}, "--cuda-graphs pads"),
        ({"recompute_activations": True}, "omit one of them"),
    ],
)
def test_cuda_graphs_are_refused_where_they_cannot_work(data, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        pretrain(run_config(data, tmp_path / "run", cuda_graphs=True, **changes))
    assert not list((tmp_path / "run").glob("[!.]*")), "nothing is written for a run that cannot begin"


def test_what_is_printed_first_agrees_with_its_numbers(tmp_path, caplog, capsys):
    data = make_data(tmp_path / "set", num_validation=0)
    with caplog.at_level("WARNING", "bertloom"):
        pretrain(run_config(data, tmp_path / "run", num_steps=2, phases=("32:0.5", "64:0.5")))
    assert "no validation examples of length 32, 64: these lengths are not evaluated" in caplog.text
    assert "in fp32, 1 thread\n" in capsys.readouterr().out
