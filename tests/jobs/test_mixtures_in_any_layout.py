"""A mixture has the same batches with any ranks and micro-batches, compiled, in CUDA graphs, sharded, and from a store."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from jobs.pretrain import pretrain
from jobs.support.pretrain_config import PretrainConfig
from jobs.verify import verify_run
from model.distributed import Ranks
from model.loading.batches import BatchReader
from model.loading.data_sets import open_data_sets
from model.loading.stream import continue_legs
from tests.jobs.small_run import TINY, learnt, make_data, numbers, run_config, train_lines
from tests.model.object_store import object_store
from tests.ranks import finish, start_ranks

CODE = "import sys; from jobs.pretrain import main; sys.exit(main(sys.argv[1:]))"


def shares(data: Path, **places: str) -> tuple[str, ...]:
    """The data sets of the mixture, with some of them at other places."""
    at = {name: data / name for name in ("web", "zh", "pep")} | places
    return (f"web={at['web']}:0.6", f"zh={at['zh']}:0.3", f"pep={at['pep']}:0.1:epochs=2")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with three data sets."""
    folder = tmp_path_factory.mktemp("mixture")
    for seed, (name, rows) in enumerate({"web": (300, 290), "zh": (130,), "pep": (40, 35)}.items()):
        make_data(folder / name, rows=rows, num_validation=20, per_member=16, num_shards=6, seed=seed)
    return folder


def mixed(data: Path, out: Path, words: tuple[str, ...] = (), **changes) -> PretrainConfig:
    values = {"num_steps": 36, "batch_size": 32, "save_every": 12, "eval_every": 20} | changes
    return replace(run_config("set", out, **values), data=words or shares(data))


def flags(data: Path, out: Path, micro_batch_size: int, *more: str) -> list[str]:
    """The command line of the run of `mixed`."""
    values = {"num_steps": 36, "batch_size": 32, "save_every": 12, "eval_every": 20, "learning_rate": 3e-3}
    values |= {
        "num_eval_examples": 40,
        "num_threads": 1,
        "device": "cpu",
        "out": out,
        "micro_batch_size": micro_batch_size,
    }
    values |= {f"model.{name}": getattr(TINY, name) for name in ("hidden_size", "num_hidden_layers")}
    values |= {f"model.{name}": getattr(TINY, name) for name in ("num_attention_heads", "intermediate_size")}
    words = [word for name, value in values.items() for word in ("--" + name.replace("_", "-"), str(value))]
    return [*words, "--model.max-position-embeddings", "64", *more, "--data", *shares(data)]


@pytest.fixture(scope="module")
def one(data, tmp_path_factory) -> Path:
    """The run of one rank with whole batches."""
    out = tmp_path_factory.mktemp("one") / "run"
    pretrain(mixed(data, out, micro_batch_size=32))
    return out


def assert_same_stream(out: Path, other: Path, tolerance: float = 1e-4) -> None:
    ours, theirs = train_lines(out), train_lines(other)
    for line, twin in zip(ours, theirs, strict=True):
        for name in ("stream", "tokens", "tokens_by_source"):
            assert line[name] == twin[name]
        assert line["loss"] == pytest.approx(twin["loss"], rel=tolerance)
        assert line["loss_by_source"] == pytest.approx(twin["loss_by_source"], rel=10 * tolerance)
    assert verify_run(out) == ([], len(theirs))


def train(size: int, arguments: list[str]) -> list[tuple[int | None, str | None, str | None]]:
    ended = finish(start_ranks(size, CODE, arguments))
    assert [status for status, _, _ in ended] == [0] * size, ended
    return ended


def test_two_and_three_ranks_have_the_batches_of_one_and_go_on_from_each_other(data, one, tmp_path):
    for size, micro_batch_size in ((2, 8), (3, 5)):
        out = tmp_path / f"ranks-{size}"
        ended = train(size, flags(data, out, micro_batch_size))
        assert "pep is used up at about step 32" in ended[0][1]
        assert_same_stream(out, one)
        for line, twin in zip(numbers(out), numbers(one), strict=True):
            if line["split"] == "validation":
                assert line["loss_by_source"] == pytest.approx(twin["loss_by_source"], rel=1e-4)
                assert line["num_examples"] == twin["num_examples"] == 20 + 12 + 4
    stopped = Path(shutil.copytree(tmp_path / "ranks-2", tmp_path / "then-one"))
    shutil.rmtree(stopped / "checkpoints/step-00000036")
    pretrain(mixed(data, stopped, micro_batch_size=7))
    assert_same_stream(stopped, one)


@pytest.mark.slow
def test_a_sharded_model_has_the_batches_and_losses_of_a_whole_one(data, one, tmp_path):
    train(2, flags(data, tmp_path / "run", 8, "--shard-model"))
    assert_same_stream(tmp_path / "run", one)


def test_padded_batches_fit_before_and_after_a_data_set_is_used_up(data, tmp_path):
    config = mixed(data, tmp_path / "run", micro_batch_size=8)
    sets = open_data_sets(config.all_sources())
    [phase] = config.schedule(sets).phases
    [leg] = continue_legs([], 0, **config.leg_settings(sets, phase))
    with BatchReader(sets, [leg], 8, Ranks(device=torch.device("cpu"))) as reader:
        [shape] = reader.pad_batches()
        batches = [reader.read(leg, step) for step in range(36)]
    sizes = [len(part.input_ids) for batch in batches for part in batch.micro_batches]
    assert sizes.count(shape.num_tokens) > 0.95 * len(sizes)


def test_a_data_set_in_a_store_in_window_order_has_the_numbers_of_a_local_one(data, tmp_path):
    changes = {"shuffle": "window:3", "micro_batch_size": 16}
    pretrain(mixed(data, tmp_path / "local", **changes))
    with object_store() as store:
        there = shares(data, zh=store.upload(data / "zh", "bucket"))
        cache = {"cache_dir": tmp_path / "cache", "cache_gb": 0.002}
        pretrain(mixed(data, tmp_path / "run", there, **changes, **cache))
        assert numbers(tmp_path / "run") == numbers(tmp_path / "local")
        assert learnt(tmp_path / "run") == learnt(tmp_path / "local")
        assert verify_run(tmp_path / "run", None, None, *cache.values()) == ([], 36)
