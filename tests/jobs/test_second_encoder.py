"""A second encoder is one file, its names in transformers and a line in the registry. Here all three are in a test."""

import json
import shutil
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jobs.cli import main
from jobs.export import ExportConfig, export
from jobs.finetune import finetune
from jobs.pretrain import pretrain
from jobs.support.finetune_config import FinetuneConfig
from model.attention import attention
from model.bert import BertEncoder
from model.encoder import Encoder
from model.encoders import ENCODERS, EncoderKind
from model.hub.pretrained import open_pretrained
from model.inference.predict import TaskPredictor, WordPredictor, load
from model.optimizer import build_optimizer, moment_names
from model.packing import PackedSequences
from model.runs.checkpoint import load_model
from model.runs.state import TrainingState, read_state
from model.shape import EncoderConfig, HuggingFaceNames, Shape
from model.tasks.training import build_optimizer as build_task_optimizer
from model.tasks.training import freeze
from tests.jobs.small_run import make_data, run_config
from tests.model.small_task import sentiment_rows, write_jsonl


@dataclass(frozen=True, kw_only=True)
class PreNormShape(Shape):
    """The shape of a pre-norm encoder without token types."""

    encoder: Literal["prenorm"] = "prenorm"
    hidden_size: int = 32
    num_hidden_layers: int = 3
    num_attention_heads: int = 2
    intermediate_size: int = 48
    max_position_embeddings: int = 64
    activation: Literal["silu", "relu"] = "silu"
    """Activation of the feed-forward block."""


class PreNormLayer(nn.Module):
    def __init__(self, shape: PreNormShape) -> None:
        super().__init__()
        size = shape.hidden_size
        self.num_heads = shape.num_attention_heads
        self.attention_norm, self.mlp_norm = nn.RMSNorm(size), nn.RMSNorm(size)
        self.wqkv, self.wo = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.up, self.down = nn.Linear(size, shape.intermediate_size), nn.Linear(shape.intermediate_size, size)

    def forward(self, hidden: Tensor, batch: PackedSequences) -> Tensor:
        T, C = hidden.shape
        qkv = self.wqkv(self.attention_norm(hidden)).view(T, 3, self.num_heads, C // self.num_heads)
        hidden = hidden + self.wo(attention(qkv, batch).reshape(T, C))
        return hidden + self.down(F.silu(self.up(self.mlp_norm(hidden))))


class PreNormEncoder(Encoder):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        shape = config.shape
        self.words = nn.Embedding(config.vocab_size, shape.hidden_size)
        self.places = nn.Embedding(shape.max_position_embeddings, shape.hidden_size)
        self.stack = nn.ModuleList(PreNormLayer(shape) for _ in range(shape.num_hidden_layers))

    def forward(self, batch: PackedSequences) -> Tensor:
        hidden = self.words(batch.input_ids) + self.places(batch.position_ids)
        for layer in self.stack:
            hidden = self.run_block(layer, hidden, batch)
        return hidden

    @property
    def blocks(self) -> list[nn.Module]:
        return [nn.ModuleList([self.words, self.places]), *self.stack]

    @property
    def word_embeddings(self) -> Tensor:
        return self.words.weight

    def forward_flops(self, lengths: np.ndarray) -> int:
        return int(lengths.sum())

    def build_norm(self) -> nn.Module:
        return nn.RMSNorm(self.config.shape.hidden_size)


HEAD = {
    "mlm.dense": "head.dense",
    "mlm.norm.weight": "head.norm.weight",
    "mlm.bias": "decoder.bias",
    "nsp.pooler": "pool.dense",
    "nsp.classifier": "pair",
}
NAMES = HuggingFaceNames(
    model_type="prenorm",
    prefix="PreNorm",
    base="prenorm",
    encoder={
        "encoder.words.weight": "prenorm.embeddings.weight",
        "encoder.places.weight": "prenorm.positions.weight",
        "encoder.stack.{}.attention_norm.weight": "prenorm.layers.{}.norm1.weight",
        "encoder.stack.{}.mlp_norm.weight": "prenorm.layers.{}.norm2.weight",
        **{f"encoder.stack.{{}}.{part}": f"prenorm.layers.{{}}.{part}" for part in ("wqkv", "wo", "up", "down")},
    },
    fused={},
    heads={
        "Model": {},
        "ForMaskedLM": {ours: theirs for ours, theirs in HEAD.items() if ours.startswith("mlm")},
        "ForPreTraining": HEAD,
        "ForSequenceClassification": {"head.dense": "pool.dense", "classifier": "classifier"},
    },
    word_embeddings="prenorm.embeddings.weight",
    decoder="decoder.weight",
    copies=("decoder.weight",),
    configuration={"model_type": "prenorm"},
    readable={"model_type": ("prenorm",)},
)


@pytest.fixture(scope="module", autouse=True)
def registered():
    ENCODERS["prenorm"] = EncoderKind(PreNormShape, f"{__name__}:PreNormEncoder", NAMES)
    yield
    del ENCODERS["prenorm"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A finished run of six steps, with its checkpoint of step 4."""
    out = tmp_path_factory.mktemp("runs") / "run"
    pretrain(run_config(data, out, model=PreNormShape()))
    return out


def test_it_is_pretrained_checkpointed_resumed_and_reloaded(data, run, tmp_path):
    assert read_state(run / "checkpoints/step-00000006", TrainingState).model["encoder"] == "prenorm"
    out = shutil.copytree(run, tmp_path / "resumed")
    shutil.rmtree(out / "checkpoints/step-00000006")
    pretrain(run_config(data, out, model=PreNormShape()))
    first, again = (load_model(folder / "checkpoints/step-00000006") for folder in (run, out))
    assert isinstance(again.encoder, PreNormEncoder)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values()))


def test_a_preset_or_a_flag_chooses_it(data, tmp_path, capsys):
    (tmp_path / "prenorm.toml").write_text('[model]\nencoder = "prenorm"\nnum_hidden_layers = 1\nactivation = "relu"\n')
    words = [
        "--data",
        str(data),
        "--num-steps",
        "1",
        "--num-eval-examples",
        "8",
        "--batch-size",
        "4",
        "--device",
        "cpu",
    ]
    preset, flag, again = tmp_path / "preset", tmp_path / "flag", tmp_path / "again"
    assert main(["pretrain", str(tmp_path / "prenorm.toml"), *words, "--out", str(preset)]) == 0
    state = read_state(preset / "checkpoints/step-00000001", TrainingState)
    assert (state.model["encoder"], state.model["num_hidden_layers"], state.model["activation"]) == (
        "prenorm",
        1,
        "relu",
    )
    flags = ["--model.encoder", "prenorm", "--model.num-hidden-layers", "1", "--model.activation", "relu"]
    assert main(["pretrain", *words, "--out", str(flag), *flags]) == 0
    assert read_state(flag / "checkpoints/step-00000001", TrainingState).model == state.model
    assert main(["pretrain", str(preset / "config.toml"), "--out", str(again)]) == 0
    assert read_state(again / "checkpoints/step-00000001", TrainingState).model == state.model

    words += ["--out", str(tmp_path / "other")]
    assert main(["pretrain", *words, "--model.encoder=none"]) == 2
    assert "model.encoder is 'none': expected one of bert, modernbert, prenorm" in capsys.readouterr().err
    assert (
        main(
            [
                "pretrain",
                *words,
                "--out",
                str(tmp_path / "other"),
                "--model.encoder",
                "prenorm",
                "--model.hidden-size",
                "33",
            ]
        )
        == 2
    )
    assert "hidden_size=33 is not a multiple" in capsys.readouterr().err
    (tmp_path / "wrong.toml").write_text('[model]\nencoder = "prenorm"\nnormalization = "batch"\n')
    assert main(["pretrain", str(tmp_path / "wrong.toml"), *words]) == 2
    assert "unknown key 'model.normalization'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["pretrain", "--model.encoder", "prenorm", "--help"])
    assert "--model.activation {silu,relu}" in capsys.readouterr().out


def test_recomputed_activations_change_no_number(data, run, tmp_path):
    pretrain(run_config(data, tmp_path / "again", model=PreNormShape(), recompute_activations=True))
    first, again = (load_model(folder / "checkpoints/step-00000006") for folder in (run, tmp_path / "again"))
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values()))


def test_a_run_cannot_change_its_encoder(data, run, tmp_path):
    out = shutil.copytree(run, tmp_path / "out")
    shutil.rmtree(out / "checkpoints/step-00000006")
    with pytest.raises(ValueError, match="encoder"):
        pretrain(run_config(data, out))


def test_muon_takes_the_matrices_of_its_layers(run):
    model = load_model(run / "checkpoints/step-00000006")
    kept = moment_names(build_optimizer(model, 0.1, "muon"))
    names = {name for name, p in model.named_parameters() if kept[p] == ("momentum_buffer",)}
    assert names == {f"encoder.stack.{i}.{part}.weight" for i in range(3) for part in ("wqkv", "wo", "up", "down")}


def test_it_is_exported_with_its_names_and_read_back(run, tmp_path):
    export(ExportConfig(checkpoint=run, out=tmp_path / "exported"))
    assert json.loads((tmp_path / "exported/config.json").read_text())["architectures"] == ["PreNormForPreTraining"]
    weights = open_pretrained(tmp_path / "exported").weights
    assert torch.equal(
        weights["prenorm.layers.2.up.weight"], open_pretrained(run).weights["prenorm.layers.2.up.weight"]
    )
    model = load(tmp_path / "exported", "cpu")
    assert isinstance(model, WordPredictor) and len(model.fill("the [MASK] house")[0]) == 5


def test_it_is_fine_tuned_with_layer_decay_and_frozen_layers(run, tmp_path):
    rows = write_jsonl(tmp_path / "rows.jsonl", sentiment_rows(64))
    out = tmp_path / "tuned"
    config = FinetuneConfig(
        task="classify",
        model=run,
        train=rows,
        dev=rows,
        out=out,
        num_epochs=1.0,
        layer_decay=0.5,
        frozen_layers=1,
        device="cpu",
        num_threads=1,
    )
    finetune(config)
    before, after = open_pretrained(run).weights, open_pretrained(out).weights
    changed = {name for name in before.keys() & after.keys() if not torch.equal(before[name], after[name])}
    assert {name.split(".")[2] for name in changed if name.startswith("prenorm.layers")} == {"1", "2"}
    assert "prenorm.embeddings.weight" not in changed and "prenorm.positions.weight" not in changed

    model = load(out, "cpu")
    assert isinstance(model, TaskPredictor) and not isinstance(model.model.encoder, BertEncoder)
    freeze(model.model.encoder, 1)
    scales = {
        p: group["lr_scale"]
        for group in build_task_optimizer(model.model, 0.0, 0.5).param_groups
        for p in group["params"]
    }
    names = {name: scales.get(parameter) for name, parameter in model.model.named_parameters()}
    assert names["classifier.weight"] == 1.0 and names["encoder.stack.2.up.weight"] == 0.5
    assert names["encoder.stack.1.up.weight"] == 0.25 and names["encoder.stack.0.up.weight"] is None
