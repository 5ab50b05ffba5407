"""Checkpoints, metrics and configurations that another program wrote: each fault is one line that names the file."""

import hashlib
import json
import os
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from bertloom.shapes import shaped
from jobs.support.finetune_results import read_results
from model.bert_config import BertShape
from model.encoders import ENCODERS, build_encoder, config_from, shape_class
from model.heads import PretrainingModel
from model.hub.config import read_config, write_config
from model.hub.pretrained import open_pretrained
from model.optimizer import build_optimizer
from model.runs.checkpoint import check_files, load_checkpoint, load_model
from model.runs.metrics import parse_line, read_metrics
from model.runs.state import TrainingState, read_state
from model.runs.verify import check_run
from model.shape import EncoderConfig
from model.step import choose_device
from tests.model.small_model import LEG, random_model, save_checkpoint, small_config, training_state

SOURCE = {"name": "a", "shards_digest": "ab", "share": 0.5, "mean_tokens": 20.0, "first": 0, "limit": None}
NOT_OURS = "it was damaged or written by something else"


def make_state(model) -> TrainingState:
    changes = [{"step": 2, "name": "batch_size", "before": 4, "after": 8}]
    return replace(training_state(model, 4), changes=changes)


@pytest.fixture
def checkpoint(tmp_path):
    model = random_model()
    return save_checkpoint(tmp_path / "run/checkpoints", model, build_optimizer(model, 0.0), make_state(model), keep=1)


def rewrite(checkpoint, change) -> None:
    """Change the content of state.json, with a checksum that fits."""
    content = json.loads((checkpoint / "state.json").read_text())
    content.pop("sha256")
    change(content)
    content["sha256"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    (checkpoint / "state.json").write_text(json.dumps(content))


def test_a_state_comes_back_from_its_json():
    state = make_state(random_model())
    assert TrainingState.from_json(json.loads(json.dumps(asdict(state)))) == state


@pytest.mark.parametrize(
    "path, value",
    [
        ("state", 5),
        ("state", {}),
        ("state.seed", "1"),
        ("state.seed", 2**63),
        ("state.extra", 1),
        ("state.model", "x"),
        ("state.model.zzz", 1),
        ("state.model.encoder", "gpt"),
        ("state.model.encoder", None),
        ("state.model.num_hidden_layers", 10**9),
        ("state.model.num_hidden_layers", 2.0),
        ("state.model.hidden_size", -4),
        ("state.model.hidden_size", 33),
        ("state.model.layer_norm_eps", float("nan")),
        ("state.model.initializer_range", 10**400),
        ("state.model.vocab_size", 10**12),
        ("state.progress", None),
        ("state.progress.step", "4"),
        ("state.progress.step", -1),
        ("state.progress.step", True),
        ("state.progress.seconds", float("inf")),
        ("state.progress.stream", "../../x"),
        ("state.progress.legs", []),
        ("state.progress.legs", [{}]),
        ("state.progress.legs", 7),
        ("state.progress.legs", [asdict(LEG) | {"step": 3}]),
        ("state.progress.legs", [asdict(LEG) | {"batch_size": 10**12}]),
        ("state.progress.legs", [asdict(LEG) | {"batch_size": 0}]),
        ("state.progress.legs", [asdict(LEG) | {"shuffle": "x"}]),
        ("state.progress.legs", [asdict(LEG) | {"sources": 5}]),
        ("state.progress.legs", [asdict(LEG) | {"sources": [SOURCE | {"share": -1}]}]),
        ("state.progress.legs", [asdict(LEG) | {"sources": [SOURCE | {"share": 0}]}]),
        ("state.progress.legs", [asdict(LEG) | {"sources": [SOURCE | {"share": 1e300}]}]),
        ("state.progress.legs", [asdict(LEG) | {"sources": [SOURCE | {"mean_tokens": 0}]}]),
        ("state.progress.legs", [asdict(LEG) | {"sources": [SOURCE | {"first": 1 << 62}]}]),
        ("state.progress.legs", [asdict(LEG) | {"sources": [SOURCE | {"limit": -1}]}]),
        ("state.progress.legs", [asdict(LEG) | {"sources": [SOURCE | {"name": ""}]}]),
        ("state.progress.legs", [asdict(LEG) | {"sources": [SOURCE, SOURCE]}]),
        ("state.progress.legs", [asdict(LEG) | {"sources": [SOURCE | {"name": f"{n}"} for n in range(33)]}]),
        ("state.progress.tokens_by_source", {"a": -1}),
        ("state.progress.tokens_by_source", {"a": 10**9}),
        ("state.progress.tokens_by_source", {"a": 1.5}),
        ("state.schedule", []),
        ("state.is_finished", 1),
        ("state.best", {"step": "x"}),
        ("state.schedule.init_from", ["a"]),
        ("state.changes", [5]),
        ("state.changes", [{"step": 1}]),
        ("state.changes", [{"step": [], "name": "a", "before": 1, "after": 2}]),
    ],
)
def test_a_value_that_training_does_not_write_is_damage(checkpoint, path, value):
    def change(content):
        *parents, name = path.split(".")
        for parent in parents:
            content = content[parent]
        content[name] = value

    rewrite(checkpoint, change)
    with pytest.raises(ValueError, match=f"state.json: .*: {NOT_OURS}$") as refused:
        read_state(checkpoint, TrainingState)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    "files",
    [
        None,
        [],
        {},
        {"../" * 16 + "dev/zero": {"bytes": 0, "sha256": ""}},
        {"model.safetensors": {"bytes": 0, "sha256": ""}},
        {"model.safetensors": 5, "optimizer.safetensors": {"bytes": 0, "sha256": ""}},
    ],
)
def test_only_the_two_files_of_tensors_are_opened(checkpoint, files):
    rewrite(checkpoint, lambda content: content.update(files=files))
    with pytest.raises(ValueError, match=f"state.json: .*: {NOT_OURS}$"):
        check_files(checkpoint)


@pytest.mark.parametrize("name", ["state.json", "model.safetensors"])
def test_a_pipe_or_a_device_in_a_checkpoint_is_not_read(checkpoint, name):
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        (checkpoint / name).unlink()
        make(checkpoint / name)
        with pytest.raises(ValueError, match=f"{name} is not a regular file"):
            read_state(checkpoint, TrainingState)
            check_files(checkpoint)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda tensors: tensors.pop("mlm.bias"), "has no tensor with the name 'mlm.bias'"),
        (lambda tensors: tensors.update(more=torch.zeros(1)), "holds a tensor with the unknown name 'more'"),
        (
            lambda tensors: tensors.update({"mlm.bias": torch.zeros(5)}),
            r"mlm.bias has the shape \(5,\), expected \(53,\)",
        ),
    ],
)
def test_tensors_of_another_model_are_refused_before_the_model_is_made(checkpoint, change, message):
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(ValueError, match=f"model.safetensors.*{message}.*: it belongs to another model"):
        load_model(checkpoint)


@pytest.mark.parametrize(
    "label, shape", [("exp_avg.mlm.bias", (5,)), ("step.mlm.bias", (2,)), ("exp_avg.no", (1,)), ("x", ())]
)
def test_moments_of_another_model_are_refused(checkpoint, label, shape):
    save_file({label: torch.zeros(shape)}, checkpoint / "optimizer.safetensors")
    model = random_model()
    with pytest.raises(ValueError, match="optimizer.safetensors: .* it belongs to another model"):
        load_checkpoint(checkpoint, model, build_optimizer(model, 0.0))


def test_a_model_larger_than_the_memory_is_refused_with_its_size(monkeypatch):
    config = small_config()
    need = 4 * sum(parameter.numel() for parameter in build_encoder(config).parameters())
    monkeypatch.setattr("model.devices.memory_bytes", lambda: need - 1)
    with pytest.raises(
        ValueError, match=f"has {need // 4:,} parameters, and its weights alone need .* this machine has"
    ):
        PretrainingModel(config)
    monkeypatch.setattr("model.devices.memory_bytes", lambda: need)
    PretrainingModel(config)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("num_hidden_layers", 10**9, "num_hidden_layers=1000000000 must be at most 1,000"),
        ("hidden_size", 10**9, "hidden_size=1000000000 must be at most 65,536"),
        ("hidden_size", 0, "hidden_size=0 must be at least 1"),
        ("hidden_size", 30, "hidden_size=30 is not a multiple of num_attention_heads=4"),
        ("num_attention_heads", 0, "num_attention_heads=0 must be at least 1"),
        ("layer_norm_eps", float("inf"), "layer_norm_eps=inf: expected a finite number"),
        ("initializer_range", -0.02, "initializer_range=-0.02 must be at least 0"),
        ("hidden_dropout_prob", 1, "hidden_dropout_prob=1 must be at least 0 and below 1"),
        ("vocab_size", [1], r"vocab_size is \[1\], expected a number"),
        ("hidden_size", "9" * 999, "hidden_size is '9{79}…, expected a number"),
    ],
)
def test_a_configuration_with_an_impossible_shape_is_refused(name, value, message):
    content = write_config(small_config(), "ForPreTraining") | {name: value}
    with pytest.raises(ValueError, match=f"^config.json: {message}"):
        read_config(content, "config.json")


def test_values_of_another_encoder_are_named():
    values = EncoderConfig(shape=BertShape(), vocab_size=9).values()
    with pytest.raises(ValueError, match="model.hidden_size is missing: expected"):
        config_from({name: value for name, value in values.items() if name != "hidden_size"})


@pytest.mark.parametrize(
    "text",
    [
        '{"step": 1e400, "split": "train"}',
        '{"step": -1, "split": "train"}',
        '{"step": true, "split": "train"}',
        '{"step": 1, "split": 5}',
        '{"step": 1, "split": "train", "loss": {"a": 1}}',
        '{"step": 1, "split": "train", "loss": [1]}',
        '{"step": 1, "split": "train", "loss": Infinity}',
        f'{{"step": 1, "split": "train", "loss": {"9" * 400}}}',
        f'{{"step": {"9" * 400}, "split": "train"}}',
        '{"step": 1, "split": "train", "tokens": "x"}',
        '{"step": 1, "split": "train", "seconds": "x"}',
        f'{{"step": 1, "split": "train", "x": {"[" * 100_000}}}',
    ],
)
def test_a_line_of_metrics_that_training_does_not_write_is_damaged(tmp_path, text):
    assert parse_line(text.encode()) is None
    (tmp_path / "metrics.jsonl").write_text(text + "\n")
    with pytest.raises(ValueError, match=r"metrics.jsonl: line 1 is damaged"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_verification_reports_a_checkpoint_that_another_program_wrote(checkpoint):
    rewrite(checkpoint, lambda content: content["state"].update(changes=[5]))
    found: list[str | None] = []
    with pytest.raises(ValueError, match="has no intact checkpoint"):
        found.extend(check_run(checkpoint.parent.parent))
    [fault] = found
    assert fault and NOT_OURS in fault
    rewrite(checkpoint, lambda content: content["state"].update(changes=[]))
    (checkpoint.parent.parent / "config.toml").write_text('log_every = "x"\ndata = 5\n')
    with pytest.raises(ValueError, match="config.toml does not name the data set of the run"):
        list(check_run(checkpoint.parent.parent))


def test_a_run_whose_model_is_not_that_of_its_weights_is_refused(checkpoint):
    run = checkpoint.parent.parent
    (run / "vocab.txt").write_text("a\n")
    digest = hashlib.sha256(b"a\n").hexdigest()
    rewrite(
        checkpoint,
        lambda content: (
            content["state"].update(vocabulary_sha256=digest),
            content["state"]["model"].update(num_hidden_layers=3),
        ),
    )
    with pytest.raises(ValueError, match="model.safetensors has no tensor with the name 'encoder.layers.2"):
        open_pretrained(run)


def test_values_are_checked_whatever_is_nested_in_them():
    assert shaped({"a": [1, 2]}, dict[str, tuple[int, ...]], "x") == {"a": (1, 2)}
    assert shaped(3, float | None, "x") == 3.0 and shaped(None, float | None, "x") is None
    with pytest.raises(ValueError, match=r"^x\.a\[1\] is 'b', expected a whole number$"):
        shaped({"a": [1, "b"]}, dict[str, tuple[int, ...]], "x")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:-1", "cuda:", "CUDA", "cpu:0", "", "meta", "tpu"])
def test_a_device_that_is_none_is_refused_with_the_names_that_are(name):
    with pytest.raises(ValueError, match=f"^device={name!r}: expected auto, cpu, cuda, cuda:N .* or mps$"):
        choose_device(name)


def test_a_device_that_the_machine_does_not_have_is_refused(monkeypatch):
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="^device=cuda:1, but torch finds no CUDA device"):
        choose_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(
        ValueError, match="^device=cuda:2, but torch finds 2 CUDA devices: expected cuda:N with N below 2"
    ):
        choose_device("cuda:2")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match="^device=mps, but this machine has no GPU of Apple"):
        choose_device("mps")


@pytest.mark.parametrize(
    "path, value",
    [
        ("settings", []),
        ("settings.model", False),
        ("settings.task", None),
        ("step", "x"),
        ("metrics", {"accuracy": "high"}),
        ("metrics", {"accuracy": 10**400}),
        ("best_seed", "../../elsewhere"),
    ],
)
def test_results_that_fine_tuning_does_not_write_are_refused(tmp_path, path, value):
    settings = {"task": "classify", "model": "ab", "train": "cd", "dev": "ef", "batch_size": 3}
    content = {"step": 3, "best_step": 2, "metrics": {"accuracy": 0.5, "pearson": None}, "settings": settings}
    (tmp_path / "results.json").write_text(json.dumps(content))
    assert read_results(tmp_path / "results.json") == content
    *parents, name = path.split(".")
    target = content
    for parent in parents:
        target = target[parent]
    target[name] = value
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"results\.json: .*, expected"):
        read_results(tmp_path / "results.json")


@pytest.mark.parametrize("name", [1e300, [], {}, True, "gpt", "x" * 999])
def test_an_encoder_that_is_none_is_refused_whatever_a_preset_holds(name):
    with pytest.raises(ValueError, match=f"^model.encoder is .{{,80}}: expected one of {', '.join(ENCODERS)}$"):
        shape_class(name)
