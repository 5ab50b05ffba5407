import dataclasses
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from jobs.pretrain import PretrainConfig, PretrainResult, main, pretrain
from jobs.verify import verify_run
from model.bert_config import BertShape
from model.loading.order import TrainingOrder
from model.runs.checkpoint import load_model
from model.runs.lock import run_lock
from model.runs.metrics import read_metrics
from model.runs.signals import stop_signals
from model.runs.state import TrainingState, read_state
from tests.forked import DEVNULL, Forked
from tests.jobs.small_run import learnt, numbers
from tests.model.synthetic import write_data_set

GOLDEN = Path(__file__).parent.parent / "golden/dataset"

TINY = BertShape(
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=64,
    hidden_dropout_prob=0.1,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("data") / "set"
    return write_data_set(directory, rows=(300, 280), num_validation=60, max_seq_lengths=(32, 64))


def config(data: Path, out: Path, **changes) -> PretrainConfig:
    values = {
        "num_steps": 12,
        "batch_size": 16,
        "micro_batch_size": 8,
        "learning_rate": 3e-3,
        "model": TINY,
        "device": "cpu",
        "eval_every": 4,
        "num_eval_examples": 40,
        "save_every": 5,
        "num_threads": 1,
    }
    return PretrainConfig(data=data, out=out, **values | changes)


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    pretrain(config(data, out))
    return out


def test_a_run_folder_explains_itself(data, unbroken, tmp_path):
    assert sorted(p.name for p in unbroken.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.toml",
        "metrics.jsonl",
        "tokenizer.json",
        "vocab.txt",
    ]
    assert (unbroken / "vocab.txt").read_bytes() == (data / "vocab.txt").read_bytes()
    assert sorted(p.name for p in (unbroken / "checkpoints").iterdir()) == ["step-00000010", "step-00000012"]
    lines = read_metrics(unbroken / "metrics.jsonl")
    assert [line["step"] for line in lines if line["split"] == "train"] == list(range(1, 13))
    assert [line["step"] for line in lines if line["split"] == "validation"] == [0, 4, 8, 12]
    assert set(lines[1]) == {
        "step",
        "split",
        "loss",
        "mlm_loss",
        "mlm_accuracy",
        "nsp_loss",
        "nsp_accuracy",
        "gradient_norm",
        "learning_rate",
        "tokens",
        "stream",
        "max_seq_length",
        "seconds",
        "tokens_per_second",
        "fill",
        "data_wait_share",
    }
    progress = read_state(unbroken / "checkpoints/step-00000012", TrainingState).progress
    assert (progress.legs[-1].item_at(12), progress.tokens) == (12 * 16, lines[-2]["tokens"])
    assert load_model(unbroken / "checkpoints/step-00000012").config.vocab_size == 53

    # config.toml is a preset
    status = main([str(unbroken / "config.toml"), "--out", str(tmp_path / "again")])
    assert status == 0
    assert numbers(tmp_path / "again") == numbers(unbroken) and learnt(tmp_path / "again") == learnt(unbroken)


def test_starting_a_finished_run_again_changes_nothing(data, unbroken, capsys):
    before = (unbroken / "metrics.jsonl").read_bytes(), learnt(unbroken)
    result = pretrain(config(data, unbroken))
    assert "is finished after 12 steps; the model is" in capsys.readouterr().out
    assert ((unbroken / "metrics.jsonl").read_bytes(), learnt(unbroken)) == before
    assert result == PretrainResult(
        out=unbroken,
        checkpoint=unbroken / "checkpoints/step-00000012",
        step=12,
        tokens_per_second=0.0,
        validation={k: v for k, v in numbers(unbroken)[-1].items() if k not in ("step", "split")},
    )
    assert result.exit_status == 0


def start(data: Path, out: Path, *flags: str) -> Forked:
    """`bertloom pretrain` in a process of its own, of 400 short steps."""
    words = ["--data", str(data), "--out", str(out), "--num-steps", "400", "--batch-size", "16"]
    words += ["--micro-batch-size", "8", "--log-every", "1"]
    words += ["--model.hidden-size", "32", "--model.num-hidden-layers", "1", "--model.num-attention-heads", "2"]
    words += ["--model.intermediate-size", "64", "--model.hidden-dropout-prob", "0.1", "--num-threads", "2"]
    words += ["--device", "cpu", "--eval-every", "30", "--num-eval-examples", "40", "--save-every", "20", *flags]
    code = "import sys; from jobs.pretrain import main; sys.exit(main(sys.argv[1:]))"
    return Forked(code, *words, stderr=DEVNULL)


def wait_for_line(process: Forked, out: Path, number: int) -> None:
    """Returns as soon as metrics.jsonl has so many lines."""
    for _ in range(30_000):
        if process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode} before it could be stopped")
        if (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_bytes().count(b"\n") >= number:
            return
        time.sleep(0.002)
    raise AssertionError("no such line in a minute")


def test_killed_and_started_again_it_gives_the_numbers_of_an_unbroken_run(data, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = start(data, whole)
    process.communicate(120)
    assert process.returncode == 0

    for line in (45, 150):  # kill -9, at no particular place
        process = start(data, broken)
        wait_for_line(process, broken, line)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = start(data, broken)
    wait_for_line(process, broken, 230)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM at step" in said and "start again to resume" in said
    step = numbers(broken)[-1]["step"]
    assert (broken / f"checkpoints/step-{step:08d}").is_dir()

    process = start(data, broken)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert f"resuming at step {step}" in said
    assert numbers(broken) == numbers(whole)
    assert learnt(broken) == learnt(whole)
    assert len(load_file(broken / "checkpoints/step-00000400/model.safetensors")) > 10


def test_from_a_damaged_checkpoint_it_falls_back_to_the_one_before(data, unbroken, tmp_path, caplog):
    out = Path(shutil.copytree(unbroken, tmp_path / "run"))
    os.truncate(out / "checkpoints/step-00000012/model.safetensors", 100)
    with caplog.at_level(logging.WARNING, "bertloom"):
        result = pretrain(config(data, out))
    assert f"damaged checkpoint: {out}/checkpoints/step-00000012/model.safetensors has 100 bytes" in caplog.text
    assert result.step == 12
    assert numbers(out) == numbers(unbroken) and learnt(out) == learnt(unbroken)


def interrupted(unbroken: Path, out: Path) -> Path:
    """A run that stands at step 10."""
    shutil.copytree(unbroken, out)
    shutil.rmtree(out / "checkpoints/step-00000012")
    return out


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"batch_size": 32}, "batch_size is 32, but this run began with 16: resume with 16, or give a new --out"),
        ({"num_steps": 20}, "num_steps is 20, but this run began with 12: the learning rate of every step depends"),
        ({"learning_rate": 1e-4}, "learning_rate is 0.0001, but this run began with 0.003"),
        ({"warmup_ratio": 0.5}, "warmup_ratio is 0.5, but this run began with 0.06"),
        ({"weight_decay": 0.0}, "weight_decay is 0.0, but this run began with 0.01"),
        ({"seed": 2}, "seed is 2, but this run began with 1"),
        ({"max_seq_length": 64}, "max_seq_length is 64, but this run began with 32"),
        (
            {"precision": "bf16"},
            "precision is bf16, but this run began with fp32: resume with fp32, or give a new --out",
        ),
        ({"spike_factor": 2.0}, "spike_factor is 2.0, but this run began with None: resume with None"),
        ({"model": dataclasses.replace(TINY, hidden_size=64)}, "model.hidden_size is 64, but this run began with 32"),
    ],
)
def test_what_decides_the_numbers_cannot_change_on_the_way(data, unbroken, tmp_path, changes, message):
    out = interrupted(unbroken, tmp_path / "run")
    before = (out / "config.toml").read_bytes(), (out / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match=re.escape(message)):
        pretrain(config(data, out, **changes))
    assert ((out / "config.toml").read_bytes(), (out / "metrics.jsonl").read_bytes()) == before


def test_other_data_or_another_vocabulary_cannot_be_given_on_the_way(data, unbroken, tmp_path):
    out = interrupted(unbroken, tmp_path / "run")
    other = write_data_set(tmp_path / "other", rows=(300, 280), num_validation=60, max_seq_lengths=(32, 64), seed=9)
    with pytest.raises(ValueError, match="the data set is not the one that this run was trained on"):
        pretrain(config(other, out))
    words = b"[UNK]\n[SEP]\n[CLS]\n" + b"".join(b"%d\n" % i for i in range(50))
    strange = write_data_set(tmp_path / "strange", rows=(300,), vocabulary=words)
    with pytest.raises(
        ValueError, match="its ids mean other words; preprocess with the tokenizer in the checkpoint's run"
    ):
        pretrain(config(strange, out))


def test_a_change_that_is_asked_for_by_name_is_made_and_recorded(data, unbroken, tmp_path, capsys):
    out = interrupted(unbroken, tmp_path / "run")
    other = write_data_set(tmp_path / "other", rows=(90, 80), num_validation=60, seed=9)
    names = ("batch_size", "num_steps", "data")
    pretrain(config(data, out, num_steps=14, batch_size=32, allow_change=names, save_every=2))
    assert "changed at step 10: batch_size from 16 to 32" in capsys.readouterr().out
    assert read_metrics(out / "metrics.jsonl")[-1]["step"] == 14
    # from here on this is how the run is: the same words need no permission, the old ones do
    shutil.rmtree(out / "checkpoints/step-00000014")
    pretrain(config(data, out, num_steps=14, batch_size=32))
    with pytest.raises(ValueError, match="batch_size is 16, but this run began with 32: .* --allow-change batch_size"):
        pretrain(config(data, out, num_steps=14))
    pretrain(config(other, out, num_steps=16, batch_size=32, allow_change=names))
    state = read_state(out / "checkpoints/step-00000016", TrainingState)
    assert sorted((change["step"], change["name"]) for change in state.changes) == [
        (10, "batch_size"),
        (10, "num_steps"),
        (14, "data"),
        (14, "num_steps"),
    ]
    assert [(leg.step, leg.item, leg.batch_size) for leg in state.progress.legs] == [
        (0, 0, 16),
        (10, 160, 32),
        (14, 0, 32),
    ]
    faults, steps = verify_run(out)
    assert steps == 0 and "step 1: the run read another data set" in faults[0]


def test_micro_batch_and_intervals_and_the_place_of_the_data_can_change_on_the_way(data, unbroken, tmp_path):
    out = interrupted(unbroken, tmp_path / "run")
    moved = Path(shutil.copytree(data, tmp_path / "moved"))
    result = pretrain(config(moved, out, micro_batch_size=5, save_every=1, eval_every=100))
    assert result.step == 12
    for ours, theirs in zip(numbers(out), numbers(unbroken), strict=True):
        assert ours.pop("split") == theirs.pop("split")
        assert ours.pop("stream", None) == theirs.pop("stream", None)  # the same examples
        assert ours == pytest.approx(theirs, rel=0.2)  # but other rounding, and other dropout


def test_a_run_killed_before_its_first_checkpoint_begins_again(data, unbroken, tmp_path):
    out = Path(shutil.copytree(unbroken, tmp_path / "run"))
    shutil.rmtree(out / "checkpoints")
    (out / "checkpoints").mkdir()
    (out / "checkpoints/.tmp-1234-1-step-00000005").mkdir()
    pretrain(config(data, out))
    assert numbers(out) == numbers(unbroken) and learnt(out) == learnt(unbroken)
    assert not list((out / "checkpoints").glob(".*"))


def test_without_a_validation_split_it_trains_and_says_so(tmp_path, caplog):
    data = write_data_set(tmp_path / "set", rows=(40,), num_validation=0, pairs=False)
    with caplog.at_level(logging.WARNING, "bertloom"):
        result = pretrain(config(data, tmp_path / "run", num_steps=2))
    assert "has no validation examples of length 32: this length is not evaluated" in caplog.text
    assert result.step == 2 and result.validation == {}


def test_a_batch_larger_than_the_data_set_goes_through_several_epochs(tmp_path):
    data = write_data_set(tmp_path / "set", rows=(5, 4), num_validation=8)
    assert pretrain(config(data, tmp_path / "run", num_steps=3)).step == 3
    (leg,) = read_state(tmp_path / "run/checkpoints/step-00000003", TrainingState).progress.legs
    assert TrainingOrder((5, 4), 1, 32).epoch_of(leg.item_at(3)) == 10  # 48 = 5 cycles of 9, and 3


def test_wrong_folders_and_lengths_are_refused(data, tmp_path):
    with pytest.raises(ValueError, match="is not a data set: the folder does not exist"):
        pretrain(config(tmp_path / "nowhere", tmp_path / "run"))
    with pytest.raises(ValueError, match="has no train examples of max_seq_length=48: it has 32, 64"):
        pretrain(config(data, tmp_path / "run", max_seq_length=48))
    short = dataclasses.replace(TINY, max_position_embeddings=16)
    with pytest.raises(ValueError, match="max_seq_length=32 is above model.max_position_embeddings=16: raise"):
        pretrain(config(data, tmp_path / "run", model=short))
    with pytest.raises(ValueError, match="max_seq_length=128 is above model.max_position_embeddings=64"):
        config(data, tmp_path / "run", max_seq_length=128)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="is not a run folder"):
        pretrain(config(data, data))
    for names in (("index.html", "config.toml", "metrics.jsonl"), ("checkpoints",), (".lock",)):  # a stranger's
        strange = tmp_path / names[0]
        strange.mkdir()
        for name in names:
            (strange / name).write_text("{}\n")
        with pytest.raises(ValueError, match="is not a run folder .*: give a new or empty folder as --out"):
            pretrain(config(data, strange))
        assert sorted(path.name for path in strange.iterdir()) == sorted(names)
        assert all((strange / name).read_text() == "{}\n" for name in names)
    cut = tmp_path / "cut"  # a full disk has cut the text of the lock
    cut.mkdir()
    (cut / ".lock").write_text("pro")
    with run_lock(cut):
        assert (cut / ".lock").read_text().startswith("process ")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file is a file: expected a folder as --out"):
        pretrain(config(data, tmp_path / "file"))


@pytest.mark.parametrize(
    "name, text", [(".lock", ""), (".lock", "process 1 on a\n"), ("checkpoints/step-00000002/x", "")]
)
def test_a_folder_with_a_run_in_it_is_ours_wherever_it_was_killed_or_copied(tmp_path, name, text):
    (tmp_path / "config.toml").write_text("")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
    with run_lock(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()


def test_two_processes_cannot_train_in_one_folder(data, unbroken):
    message = rf"process {os.getpid()} on .* is training in"
    with run_lock(unbroken), pytest.raises(ValueError, match=message):
        pretrain(config(data, unbroken))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_steps": 0}, "num_steps=0 must be at least 1"),
        ({"keep_checkpoints": 0}, "keep_checkpoints=0 must be at least 1"),
        ({"num_threads": 0}, "num_threads=0 must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate=0 must be above 0 and at most 1"),
        ({"learning_rate": 2.0}, "learning_rate=2 must be above 0 and at most 1: was 0.0002 meant?"),
        ({"warmup_ratio": 1.0}, "warmup_ratio=1 must be at least 0 and below 1"),
        ({"num_steps": None}, "the length of training is missing: give --num-steps, --num-epochs, --num-tokens"),
        ({"num_epochs": 1.0}, "the length of training is given in steps and in epochs: give only one of num_steps"),
        ({"warmup_steps": 12}, "warmup_steps=12 must be at least 0 and below num_steps=12"),
        ({"adam_beta2": 1.0}, "adam_beta2=1 must be at least 0 and below 1"),
        ({"adam_epsilon": 0.0}, "adam_epsilon=0 must be above 0"),
        (
            {"patience": 2, "phases": ("32:0.5", "64:0.5")},
            "patience=2 cannot be used with 2 phases, which have different examples",
        ),
        ({"decay_ratio": 0.0}, "decay_ratio=0 must be above 0 and at most 1 - warmup_ratio = 0.94"),
        ({"max_seq_length": 32, "phases": ("32:1",)}, "max_seq_length=32 and phases: give one"),
        ({"phases": ("32:0.5", "128:0.5")}, "max_seq_length=128 is above model.max_position_embeddings=64"),
        ({"budget": "soon"}, "budget='soon' is not a duration"),
        ({"allow_change": ("model",)}, "allow_change: 'model' cannot change when a run is resumed: expected num_steps"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1 must be at least 0"),
        ({"seed": -1}, "seed=-1 must be at least 0 and below 2^63"),
    ],
)
def test_impossible_values_are_refused(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        config(Path("data"), Path("out"), **changes)


@pytest.mark.parametrize("name", ["tiny", "mini", "small", "base", "large"])
def test_the_shipped_presets_are_whole(name):
    from jobs.support.config import parse

    chosen = parse(PretrainConfig, [name, "--data", "DATA", "--out", "OUT"], prog="bertloom pretrain")
    assert chosen.model.hidden_size == chosen.model.num_attention_heads * 64
    assert chosen.model.intermediate_size == 4 * chosen.model.hidden_size
    assert chosen.batch_size % chosen.micro_batch_size == 0


def test_sigterm_may_come_several_times_and_ctrl_c_still_ends_it_at_once():
    outside = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with stop_signals() as signals:
            for _ in range(3):  # the service manager's, torchrun's
                os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            term, interrupt = signal.SIGTERM, signal.SIGINT
            assert signals == [term, term, term, interrupt, term]
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, outside)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_with_its_status_and_a_checkpoint_and_without_an_evaluation(data, tmp_path, number):
    out = tmp_path / "run"
    process = start(data, out, "--eval-every", "1", "--num-steps", "100000")
    wait_for_line(process, out, 10)
    for _ in range(3 if number == signal.SIGTERM else 1):
        process.send_signal(number)
        time.sleep(0.002)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    last = numbers(out)[-1]
    assert last["split"] == "train" and f"stopped by {number.name} at step {last['step']}" in said
    assert read_state(out / f"checkpoints/step-{last['step']:08d}", TrainingState).step == last["step"]


def test_a_training_needs_neither_beam_nor_the_pipeline_nor_tokenizers(tmp_path):
    code = (
        "import sys; sys.modules |= dict.fromkeys(['apache_beam', 'pipeline', 'tokenizers', 'transformers']); "
        "from jobs.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["tiny", "--data", str(GOLDEN), "--out", str(tmp_path / "run"), "--num-steps", "1", "--device", "cpu"]
    subprocess.run([sys.executable, "-c", code, "pretrain", *words], check=True, capture_output=True, text=True)
    assert [line["step"] for line in numbers(tmp_path / "run") if line["split"] == "train"] == [1]
