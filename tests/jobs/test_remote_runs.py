"""Runs on a data set behind s3://, from a real S3 server on loopback: the same numbers as on a local disk."""

import shutil
import signal
import socket
import time
from pathlib import Path

import pytest

from jobs.pretrain import pretrain
from jobs.support.pretrain_config import PretrainConfig
from jobs.verify import main as verify_main
from jobs.verify import verify_run
from model.bert_config import BertShape
from model.runs.state import TrainingState, read_state
from tests.forked import STDOUT, Forked
from tests.jobs.small_run import numbers
from tests.model import synthetic
from tests.model.object_store import Store, object_store

MODEL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
COMMON = {
    "num_steps": 12,
    "batch_size": 16,
    "micro_batch_size": 8,
    "learning_rate": 3e-3,
    "device": "cpu",
    "eval_every": 6,
    "num_eval_examples": 40,
    "save_every": 4,
    "num_threads": 1,
}
URL = "s3://bucket/set"
SMALL_GB = 0.00008
"""Room for less than half of the training shards."""
CODE = "import sys; from jobs.pretrain import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("data") / "set"
    return synthetic.write_data_set(directory, rows=(600, 480), num_shards=6, num_validation=60, per_member=50)


@pytest.fixture(scope="module")
def server(data):
    with object_store() as store:
        store.upload(data, "bucket")
        yield store


@pytest.fixture
def store(server) -> Store:
    server.reset()
    return server


def config(data: Path | str, out: Path, **changes) -> PretrainConfig:
    return PretrainConfig(data=str(data), out=out, model=BertShape(**MODEL), **COMMON | changes)


def streams(out: Path) -> list[str]:
    return [line["stream"] for line in numbers(out) if line["split"] == "train"]


def words(out: Path, **changes) -> list[str]:
    values = COMMON | {"data": URL, "out": out} | {f"model.{name}": value for name, value in MODEL.items()} | changes
    return [word for name, value in values.items() for word in ("--" + name.replace("_", "-"), str(value))]


def start(arguments: list[str], **environment: str) -> Forked:
    return Forked(CODE, *arguments, env=environment, stderr=STDOUT)


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory) -> dict[str, Path]:
    """A run on the local disk in either order."""
    folder = tmp_path_factory.mktemp("runs")
    for shuffle in ("global", "window:2"):
        pretrain(config(data, folder / shuffle, shuffle=shuffle))
    assert streams(folder / "global")[0] != streams(folder / "window:2")[0]
    return {shuffle: folder / shuffle for shuffle in ("global", "window:2")}


@pytest.mark.parametrize("shuffle, gigabytes", [("global", 0.01), ("window:2", 0.01), ("window:2", SMALL_GB)])
def test_a_run_over_s3_reads_and_learns_what_a_local_one_does(store, unbroken, tmp_path, shuffle, gigabytes, capsys):
    cache = {"cache_dir": tmp_path / "cache", "cache_gb": gigabytes}
    out = tmp_path / "run"
    pretrain(config(URL, out, shuffle=shuffle, **cache))
    assert numbers(out) == numbers(unbroken[shuffle])
    assert (out / "vocab.txt").read_bytes() == (unbroken[shuffle] / "vocab.txt").read_bytes()
    assert read_state(out / "checkpoints/step-00000012", TrainingState).progress.legs[0].shuffle == shuffle
    flags = ["--cache-dir", str(cache["cache_dir"]), "--cache-gb", str(gigabytes)]
    assert verify_main([str(out), *flags]) == 0
    assert "12 steps read again, 0 faults" in capsys.readouterr().out
    assert verify_run(unbroken[shuffle], URL, None, *cache.values()) == ([], 12)
    used = sum(path.stat().st_size for path in cache["cache_dir"].rglob("*.arrow"))
    assert 0 < used <= gigabytes * 1e9


def test_global_order_with_too_small_a_cache_is_warned_of(store, tmp_path, caplog):
    pretrain(config(URL, tmp_path / "run", num_steps=1, cache_dir=tmp_path / "cache", cache_gb=SMALL_GB))
    assert "in global order" in caplog.text and "take --cache-gb" in caplog.text


def test_killed_and_started_again_it_ends_with_the_same_numbers(store, unbroken, tmp_path):
    cache = {"cache_dir": tmp_path / "cache", "cache_gb": 0.01}
    process = start(words(tmp_path / "run", shuffle="window:2", **cache))
    for _ in range(12_000):
        if (tmp_path / "run/checkpoints/step-00000004").exists() or process.poll() is not None:
            break
        time.sleep(0.005)
    process.kill()
    output = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, output
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    store.reset()
    pretrain(config(URL, tmp_path / "run", shuffle="window:2", **cache))
    shutil.rmtree(tmp_path / "cache")
    fetched = len(store.fetched())
    pretrain(config(URL, tmp_path / "again", shuffle="window:2", **cache))
    assert len(store.fetched()) > 2 * fetched
    for run in ("run", "again"):
        assert numbers(tmp_path / run) == numbers(unbroken["window:2"])
        assert verify_run(tmp_path / run, None, None, *cache.values()) == ([], 12)


def test_two_ranks_share_a_cache_and_fetch_each_shard_once(store, unbroken, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    flags = words(tmp_path / "run", cache_dir=tmp_path / "cache", cache_gb=0.01, micro_batch_size=3)
    ranks = [start(flags, RANK=str(rank), LOCAL_RANK=str(rank), **common) for rank in range(2)]
    for process in ranks:
        output = process.communicate(timeout=120)[0]
        assert process.returncode == 0, output
    assert streams(tmp_path / "run") == streams(unbroken["global"])
    fetched = [path for path, _ in store.fetched() if "/train/" in path]
    assert len(fetched) == len(set(fetched)) > 2


def test_a_windowed_run_resumes_exactly_and_its_order_does_not_change_unasked(data, unbroken, tmp_path):
    out = Path(shutil.copytree(unbroken["window:2"], tmp_path / "run"))
    shutil.rmtree(out / "checkpoints/step-00000012")
    for shuffle in ("global", "window:3"):
        with pytest.raises(ValueError, match=f"shuffle is {shuffle}, but this run began with window:2: resume with"):
            pretrain(config(data, out, shuffle=shuffle))
    pretrain(config(data, out, shuffle="window:2", micro_batch_size=5))
    assert streams(out) == streams(unbroken["window:2"])

    shutil.rmtree(out / "checkpoints/step-00000012")
    pretrain(config(data, out, shuffle="global", allow_change=("shuffle",)))
    state = read_state(out / "checkpoints/step-00000012", TrainingState)
    assert [(leg.step, leg.shuffle, leg.item) for leg in state.progress.legs] == [(0, "window:2", 0), (8, "global", 0)]
    assert state.changes == [{"step": 8, "name": "shuffle", "before": "window:2", "after": "global"}]
    assert streams(out)[:8] == streams(unbroken["window:2"])[:8] and streams(out)[8] != streams(unbroken["window:2"])[8]
    assert verify_run(out) == ([], 12)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"shuffle": "window:0"}, "shuffle='window:0': expected global, or window:16"),
        ({"cache_gb": 0.0}, "cache_gb=0 must be above 0"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        config("s3://bucket/set", tmp_path, **changes)
