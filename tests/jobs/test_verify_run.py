"""`bertloom verify RUN`, on a run that is then damaged."""

import json
import shutil
import time
from pathlib import Path

import pytest

from jobs.pretrain import PretrainConfig, pretrain
from jobs.verify import VerifyConfig, main, verify_run
from model.bert_config import BertShape
from model.runs.metrics import read_metrics
from tests.model.model_mutants import seal
from tests.model.synthetic import place_of, write_data_set

TINY = BertShape(
    hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, max_position_embeddings=64
)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    write_data_set(folder / "set", rows=(60, 50), num_validation=10)
    train(folder / "set", folder / "run", num_steps=12, save_every=5)
    return folder


def train(data: Path, out: Path, **changes) -> None:
    config = {"data": data, "out": out, "batch_size": 16, "model": TINY, "device": "cpu", "num_threads": 1}
    pretrain(PretrainConfig(**config | changes))


@pytest.fixture
def run(original, tmp_path) -> Path:
    return Path(shutil.copytree(original / "run", tmp_path / "run"))


def edit_metrics(run: Path, step: int, **changes) -> None:
    lines = [
        line | changes if (line["step"], line["split"]) == (step, "train") else line
        for line in read_metrics(run / "metrics.jsonl")
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_sound_run_has_no_fault_whole_or_in_part(run, capsys):
    assert verify_run(run) == ([], 12)
    assert verify_run(run, last_steps=4) == ([], 4)
    assert main([str(run)]) == 0
    assert capsys.readouterr().out.endswith("run: 12 steps read again, 0 faults\n")


def test_a_run_that_writes_few_lines_has_no_fault_and_one_without_any_has(original, tmp_path):
    run = tmp_path / "run"
    train(original / "set", run, num_steps=20, log_every=10, save_every=7, keep_checkpoints=3)
    shutil.rmtree(run / "checkpoints/step-00000020")  # as if it were still going on
    assert [line["step"] for line in read_metrics(run / "metrics.jsonl") if line["split"] == "train"] == [10, 20]
    assert verify_run(run) == ([], 14)
    shutil.rmtree(run / "checkpoints/step-00000014")
    assert verify_run(run) == ([], 7)
    (run / "config.toml").write_text((run / "config.toml").read_text().replace("log_every = 10", "log_every = 5"))
    assert verify_run(run) == (
        ["metrics.jsonl: expected lines of steps up to 7, the latest checkpoint, and found none"],
        7,
    )


def test_the_order_of_many_lines_is_looked_at_in_one_pass(run):
    lines = [json.dumps({"step": step, "split": "train", "stream": "", "tokens": 0}) for step in range(13, 60_000)]
    with open(run / "metrics.jsonl", "a") as file:
        file.write("\n".join(lines) + "\n")
    begin = time.process_time()
    assert verify_run(run) == ([], 12)
    assert time.process_time() - begin < 10  # quadratic, it was half a minute


def test_other_rows_are_found_at_their_step(run, capsys):
    edit_metrics(run, 7, stream="0123456789abcdef")
    faults, count = verify_run(run)
    assert count == 6 and len(faults) == 1
    assert faults[0].startswith("step 7: metrics.jsonl has the stream digest 0123456789abcdef, but the data set gives ")
    assert main([str(run)]) == 1
    assert "step 7: metrics.jsonl has the stream digest" in capsys.readouterr().out


def test_other_counts_damaged_lines_and_lines_told_twice_are_found(run):
    edit_metrics(run, 3, tokens=5)
    faults, _ = verify_run(run)
    assert len(faults) == 1 and faults[0].startswith("step 3: metrics.jsonl has 5 tokens, but the data set gives ")
    content = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join([*content[:2], "{\n", *content, '{"half']))
    faults, _ = verify_run(run)
    assert faults[:2] == [
        "metrics.jsonl: line 3 is damaged",
        "metrics.jsonl: step 1 appears after step 1: the lines are out of order",
    ]


def test_a_damaged_checkpoint_is_a_fault_and_the_rest_is_still_read(run):
    file = run / "checkpoints/step-00000010/model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert verify_run(run) == ([f"{file} does not match its sha256 in state.json"], 12)


def test_steps_that_nothing_records_are_not_read_on_and_on(run):
    state = json.loads((run / "checkpoints/step-00000012/state.json").read_text())
    assert state["state"]["progress"]["step"] == 12
    state["state"]["progress"]["step"] = 10**15
    (run / "checkpoints/step-00000012/state.json").write_text(json.dumps(state))
    seal(run / "checkpoints/step-00000012")
    (run / "checkpoints/step-00000012").rename(run / f"checkpoints/step-{10**15}")
    message = (
        "step 13: neither metrics.jsonl nor a checkpoint has a digest of the next 100,000 steps, so that step "
        "1,000,000,000,000,000 cannot be verified"
    )
    assert verify_run(run) == ([message], 12)
    (run / "metrics.jsonl").unlink()
    assert verify_run(run) == (
        [
            f"metrics.jsonl: expected lines of steps up to {10**15}, the latest checkpoint, and found none",
            message.replace("step 13", "step 11"),
        ],
        10,
    )


def test_changed_data_is_found_at_the_first_step_that_reads_it(original, run, tmp_path):
    data = Path(shutil.copytree(original / "set", tmp_path / "set"))
    shard = data / "train/seq32/copy0/00000.tar"
    content = bytearray(shard.read_bytes())
    content[place_of(shard, "masked_lm_ids", 2)] ^= 1  # a true id, of row 0
    shard.write_bytes(content)
    faults, count = verify_run(run, data)
    assert count < 4 and len(faults) == 1 and faults[0].startswith(f"step {count + 1}: metrics.jsonl has the stream")
    offset = place_of(shard, "input_ids", 1) + 4
    content[offset : offset + 4] = (2**20).to_bytes(4, "little")
    shard.write_bytes(content)
    faults, count = verify_run(run, data)
    assert len(faults) == 1 and faults[0].startswith(f"step {count + 1}: member 0 of shard {shard} cannot be read")


def test_another_data_set_or_none_is_said(run, tmp_path):
    write_data_set(tmp_path / "other", rows=(60, 50), num_validation=10, seed=3)
    faults, count = verify_run(run, tmp_path / "other")
    assert count == 0 and faults[0].startswith("step 1: the run read another data set than")
    (run / "config.toml").unlink()
    with pytest.raises(ValueError, match="does not name the data set of the run: give it as --data"):
        verify_run(run)


def test_a_run_without_a_checkpoint_and_flags_for_a_data_set_are_refused(original, run):
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(ValueError, match="has no intact checkpoint"):
        verify_run(run)
    with pytest.raises(ValueError, match="--data and --last-steps are for run folders"):
        VerifyConfig(path=str(original / "set"), last_steps=3)
    with pytest.raises(ValueError, match="last_steps=0 must be at least 1"):
        VerifyConfig(path=str(run), last_steps=0)
