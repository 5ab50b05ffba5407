"""Tables of phases: what they may say, what a run of three phases reads, masks and learns, and how it resumes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from bertloom.json_files import read_json
from jobs.pretrain import pretrain
from jobs.support import pretraining
from jobs.support.config import dump, parse
from jobs.support.phase_tables import PhaseTable, phases_of, read_table, table_names
from jobs.support.pretrain_config import PretrainConfig
from jobs.verify import verify_run
from model.runs.state import TrainingState, read_state
from tests.jobs.small_run import CODE, learnt, make_data, phases_config, train_lines
from tests.ranks import finish, start_ranks

TABLE = """
[[phase]]
share = 0.5
max_seq_length = 32
masked_lm_prob = 0.3
decay = "constant"

[[phase]]
share = 0.25
max_seq_length = 64
batch_size = 8
masked_lm_prob = 0.15
decay = "cosine"
final_learning_rate = 0.5

[[phase]]
share = 0.25
max_seq_length = 32
masked_lm_prob = 0.05
decay = "sqrt"
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("phases") / "set")


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("phases") / "table.toml"
    path.write_text(TABLE)
    return str(path)


@pytest.fixture(scope="module")
def unbroken(data, table, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("phases") / "run"
    pretrain(phases_config(data, out, table))
    return out


def parsed(*words: str) -> PretrainConfig:
    return parse(PretrainConfig, [*words, "--data", "DATA", "--out", "OUT"], "bertloom pretrain")


def test_a_run_holds_its_table_and_can_be_given_as_a_preset(tmp_path, table):
    config = parsed("tiny", "--phases", table)
    assert config.phases == () and [phase.share for phase in config.phase] == [0.5, 0.25, 0.25]
    (tmp_path / "config.toml").write_text(dump(config))
    assert tomllib.loads(dump(config))["phase"] == tomllib.loads(TABLE)["phase"]
    assert parsed(str(tmp_path / "config.toml")) == config
    again = parsed(str(tmp_path / "config.toml"), "--phases", "128:1")
    assert again.phases == ("128:1",) and again.phase == (), "the flag replaces the table"
    assert parsed(str(tmp_path / "config.toml"), "--max-seq-length", "64").phase == ()
    assert parsed("tiny", table).phase == config.phase, "a table is a preset, too"


def test_words_are_what_they_were():
    config = parsed("tiny", "--phases", "128:0.9", "512:0.1:64")
    assert config.phase == () and config.settings()["phases"] == ["128:0.9", "512:0.1:64"]
    assert [phase.decay for phase in config.all_phases()] == [None, None]


def test_every_shipped_table_is_valid_and_has_phases_of_the_shortest_length():
    assert table_names() == ["annealing"]
    for name in table_names():
        phases = parsed("tiny", "--phases", name).all_phases()
        assert {phase.max_seq_length for phase in phases} == {0}
    assert [phase.masked_lm_prob for phase in phases] == [0.3, 0.15, 0.05]
    assert [(phase.learning_rate, phase.final_learning_rate) for phase in phases] == [(1, 1), (1, 0.5), (0.5, 0)]


def test_a_rate_that_is_not_given_follows_from_the_phase_before():
    tables = [
        PhaseTable(share=0.2),
        PhaseTable(share=0.2, final_learning_rate=0.4),
        PhaseTable(share=0.2, decay="constant"),
        PhaseTable(share=0.2, learning_rate=0.8, decay="cosine", final_learning_rate=0.1),
        PhaseTable(share=0.2, decay="sqrt"),
    ]
    found = [(phase.decay, phase.learning_rate, phase.final_learning_rate) for phase in phases_of(tables, 1)]
    assert found == [
        ("constant", 1.0, 1.0),
        ("linear", 1.0, 0.4),
        ("constant", 0.4, 0.4),
        ("cosine", 0.8, 0.1),
        ("sqrt", 0.1, 0.0),
    ]
    plain = phases_of([PhaseTable(share=0.5), PhaseTable(share=0.5, masked_lm_prob=0.05)], 1)
    assert [phase.decay for phase in plain] == [None, None], "without rates, --decay is for the whole training"


HALVES = "[[phase]]\nshare = 0.5\n{}\n[[phase]]\nshare = 0.5\n{}\n"


@pytest.mark.parametrize(
    "text, message",
    [
        ("[[phases]]\nshare = 1\n", r"table.toml: unknown key 'phases': did you mean 'phase'\?"),
        (
            "[[phase]]\nshare = 1\nlearning_rates = 1\n",
            "unknown key 'phase[0].learning_rates': did you mean 'learning_rate'?",
        ),
        ("[[phase]]\nmax_seq_length = 32\n", "table.toml: phase[0] has no share"),
        ("[[phase]]\nshare = 'half'\n", "phase[0].share = 'half': expected a number"),
        ("[[phase]]\nshare = 1\ndecay = 'wsd'\n", "expected one of 'constant', 'linear', 'cosine', 'sqrt'"),
        ("[phase]\nshare = 1\n", "phase = {'share': 1}: expected a list, each item a table"),
        ("share = 1\n", "unknown key 'share'"),
        ("", "table.toml has no [[phase]]: expected one for each phase"),
        ("phase = [", "phases: "),
        ("[[phase]]\nshare = 1.5\n", "phase 1: share=1.5 must be above 0 and at most 1"),
        ("[[phase]]\nshare = 0.5\n", "the shares of the 1 phases add up to 0.5, expected 1"),
        (HALVES.format("max_seq_length = 4", ""), "phase 1: max_seq_length=4 must be 8 to 65535"),
        (HALVES.format("", "batch_size = 0"), "phase 2: batch_size=0 must be at least 1"),
        (HALVES.format("", "masked_lm_prob = 30"), "phase 2: masked_lm_prob=30 must be above 0 and at most 1"),
        (HALVES.format("learning_rate = 1e-4", "learning_rate = 3"), "phase 2: learning_rate=3 must be above 0"),
        (
            HALVES.format("decay = 'linear'", ""),
            "phase 2 begins with the learning rate 0, because the phase before it ends with 0",
        ),
        (
            HALVES.format("", "decay = 'constant'\nfinal_learning_rate = 0.5"),
            "phase 2: final_learning_rate=0.5 with decay",
        ),
        (
            HALVES.format("final_learning_rate = 0.2", "final_learning_rate = 0.5"),
            "phase 2: final_learning_rate=0.5 must be below",
        ),
    ],
)
def test_a_table_that_cannot_be_is_refused_with_its_reason(tmp_path, text, message):
    path = tmp_path / "table.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message if message.startswith("table.toml: unknown") else None) as caught:
        parsed("tiny", "--phases", str(path))
    assert message.startswith("table.toml: unknown") or message in str(caught.value)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--phases", "none.toml"], "phases: none.toml does not exist: expected a TOML file .* or one of annealing"),
        (["--phases", "anealing"], "phases: 'anealing' is not LENGTH:SHARE, .* or one of annealing"),
        (["--phases", "128:0.5", "annealing"], "a table cannot be given with other phases: give annealing alone"),
        (["--phases", "annealing", "--max-seq-length", "32"], "max_seq_length and phases are alternatives"),
        (["--phases", "annealing", "--decay", "wsd"], "decay=wsd with decay_ratio=0.2, and a table of phases"),
        (["--phases", "annealing", "--patience", "3"], "patience=3 cannot be used with 3 phases"),
        (["--phase", "annealing"], "unknown flag --phase: did you mean --phases"),
    ],
)
def test_flags_that_contradict_a_table_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        parsed("tiny", *words)


def test_a_folder_is_not_a_table(tmp_path):
    (tmp_path / "table.toml").mkdir()
    with pytest.raises(ValueError, match="phases: .*table.toml is not a regular file"):
        read_table([str(tmp_path / "table.toml")])


@pytest.mark.parametrize(
    "text, changes, message",
    [
        (HALVES.format("max_seq_length = 48", ""), {}, "no train examples of max_seq_length=48: it has 32, 64"),
        (HALVES.format("max_seq_length = 128", ""), {}, "max_seq_length=128 is above model.max_position_embeddings=64"),
        (
            HALVES.format("masked_lm_prob = 0.3", "masked_lm_prob = 0.15"),
            {"remask": False},
            "phase 1 has masked_lm_prob=0.3, but the masks of .* were drawn with 0.15: add --remask, .* "
            "`bertloom preprocess --masked-lm-prob 0.3`",
        ),
        (HALVES.format("", ""), {"num_steps": 1}, "phase 1 has no step, because its share is 0.5 of 1 steps"),
        (HALVES.format("", "decay = 'linear'"), {"warmup_ratio": 0.5}, "the warm-up of 8 steps is not over before"),
        (
            HALVES.format("", "max_seq_length = 64"),
            {"num_epochs": 1, "num_steps": None},
            "num_epochs=1 cannot be used with",
        ),
    ],
)
def test_a_table_that_does_not_fit_the_run_is_refused_before_anything_is_written(
    data, tmp_path, text, changes, message
):
    (tmp_path / "table.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        pretrain(phases_config(data, tmp_path / "run", str(tmp_path / "table.toml"), **changes))
    assert not list((tmp_path / "run").glob("[!.]*"))


def test_a_phase_with_the_rate_of_its_data_set_needs_no_new_masks(data, tmp_path):
    (tmp_path / "table.toml").write_text(HALVES.format("masked_lm_prob = 0.15", ""))
    pretrain(phases_config(data, tmp_path / "run", str(tmp_path / "table.toml"), num_steps=2, remask=False))
    state = read_state(tmp_path / "run/checkpoints/step-00000002", TrainingState)
    assert [leg.masked_lm_prob for leg in state.progress.legs] == [None]
    content = read_json(tmp_path / "run/checkpoints/step-00000002/state.json")
    assert [leg.keys() & {"masked_lm_prob"} for leg in content["state"]["progress"]["legs"]] == [set()]


def test_epochs_may_be_divided_into_phases_of_the_same_examples(data, tmp_path):
    pretrain(phases_config(data, tmp_path / "run", "annealing", num_steps=None, num_epochs=1.0))
    state = read_state(max((tmp_path / "run/checkpoints").iterdir()), TrainingState)
    assert state.step == 19  # 300 examples in steps of 16
    assert [(leg.step, leg.item, leg.masked_lm_prob) for leg in state.progress.legs] == [
        (0, 0, 0.3),
        (13, 13 * 16, 0.15),
        (17, 17 * 16, 0.05),
    ]


def test_three_phases_have_their_lengths_batches_masks_and_rates(data, table, tmp_path, monkeypatch, capsys, unbroken):
    masked, tokens = defaultdict(int), defaultdict(int)
    step = pretraining.train_step

    def counted(model, optimizer, batch, **options):
        masked[options["step"]] += batch.num_masked
        tokens[options["step"]] += batch.num_tokens
        assert batch.num_masked == sum(len(part.masked_ids) for part in batch.micro_batches)
        return step(model, optimizer, batch, **options)

    monkeypatch.setattr(pretraining, "train_step", counted)
    pretrain(phases_config(data, tmp_path / "run", table))
    assert train_lines(tmp_path / "run") == train_lines(unbroken)
    lines = train_lines(unbroken)
    assert [line["max_seq_length"] for line in lines] == [32] * 8 + [64] * 4 + [32] * 4
    shares = [masked[step] / tokens[step] for step in range(16)]
    assert shares == pytest.approx([0.3] * 8 + [0.15] * 4 + [0.05] * 4, abs=0.02)
    rates = [line["learning_rate"] / 3e-3 for line in lines]
    assert rates[:8] == pytest.approx([1 / 3, 2 / 3, *[1] * 6])
    assert rates[8:12] == pytest.approx([1, 0.926777, 0.75, 0.573223], abs=1e-6)
    assert rates[12:] == pytest.approx([0.5, 0.25, 0.5 * (1 - 0.5**0.5), 0.5 * (1 - 0.75**0.5)])
    assert verify_run(unbroken) == ([], 16)
    printed = capsys.readouterr().out
    assert (
        "phase 1: 50 % of the training, steps 1 to 8, length 32, batch size 16, 30 % masks, learning rate 0.003\n"
        in printed
    )
    third = "phase 3: 25 % of the training, steps 13 to 16, length 32, batch size 16, 5 % masks"
    assert f"{third}, learning rate 0.0015 to 0 (sqrt)\n" in printed
    state = read_state(unbroken / "checkpoints/step-00000016", TrainingState)
    legs = [(leg.step, leg.max_seq_length, leg.item, leg.batch_size, leg.masked_lm_prob) for leg in state.progress.legs]
    assert legs == [(0, 32, 0, 16, 0.3), (8, 64, 0, 8, 0.15), (12, 32, 128, 16, 0.05)]


@pytest.mark.parametrize("step", [4, 8, 12])
def test_a_run_that_was_stopped_in_any_phase_goes_on_to_the_same_bits(data, table, tmp_path, unbroken, step):
    out = Path(shutil.copytree(unbroken, tmp_path / "run"))
    for path in (out / "checkpoints").iterdir():
        if int(path.name[5:]) > step:
            shutil.rmtree(path)
    pretrain(phases_config(data, out, table))
    assert train_lines(out) == train_lines(unbroken) and learnt(out) == learnt(unbroken)


def test_another_table_is_refused_unless_it_is_allowed(data, table, tmp_path, unbroken):
    out = Path(shutil.copytree(unbroken, tmp_path / "run"))
    for name in ("step-00000012", "step-00000016"):
        shutil.rmtree(out / "checkpoints" / name)
    (tmp_path / "other.toml").write_text(TABLE.replace("0.05", "0.1"))
    with pytest.raises(
        ValueError, match="phases is .*masked_lm_prob=0.1.* but this run began with .* --allow-change phases"
    ):
        pretrain(phases_config(data, out, str(tmp_path / "other.toml")))
    pretrain(phases_config(data, out, str(tmp_path / "other.toml"), allow_change=("phases",)))
    state = read_state(out / "checkpoints/step-00000016", TrainingState)
    assert [leg.masked_lm_prob for leg in state.progress.legs] == [0.3, 0.15, 0.1]
    assert [change["name"] for change in state.changes] == ["phases"]
    assert train_lines(out)[:12] == train_lines(unbroken)[:12]
    assert [line["stream"] for line in train_lines(out)] == [line["stream"] for line in train_lines(unbroken)]
    assert verify_run(out) == ([], 16)


def words(data: Path, out: Path, table: str, num_steps: int = 16) -> list[str]:
    preset = out.parent / f"{out.name}.toml"
    preset.write_text(dump(phases_config(data, out, table, num_steps=num_steps, save_every=1)))
    return [str(preset)]


def test_a_run_stopped_in_a_phase_under_two_ranks_is_finished_by_one(data, table, tmp_path, unbroken):
    out = tmp_path / "run"
    ended = finish(start_ranks(2, CODE, words(data, out, table)))
    assert [status for status, _, _ in ended] == [0, 0], ended
    for path in (out / "checkpoints").iterdir():
        if int(path.name[5:]) > 5:
            shutil.rmtree(path)
    pretrain(phases_config(data, out, table))
    assert verify_run(out) == ([], 16)
    ours, theirs = train_lines(out), train_lines(unbroken)
    assert [(line["stream"], line["tokens"]) for line in ours] == [(line["stream"], line["tokens"]) for line in theirs]
    for line, twin in zip(ours, theirs, strict=True):
        assert line["loss"] == pytest.approx(twin["loss"], rel=1e-3)  # the masks are the same, too
        assert line["learning_rate"] == twin["learning_rate"]


@pytest.mark.slow
def test_kills_at_random_steps_change_nothing(data, table, tmp_path, unbroken):
    draw = random.Random(7)
    out, flags = tmp_path / "run", words(data, tmp_path / "run", table)
    for step in sorted(draw.sample(range(1, 15), 3)):
        process = subprocess.Popen(
            [sys.executable, "-c", CODE, *flags], start_new_session=True, stdout=subprocess.DEVNULL
        )
        while process.poll() is None and not list((out / "checkpoints").glob(f"step-*{step:02d}")):
            time.sleep(0.01)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert subprocess.run([sys.executable, "-c", CODE, *flags], stdout=subprocess.DEVNULL).returncode == 0
    assert train_lines(out) == train_lines(unbroken) and learnt(out) == learnt(unbroken)
    assert verify_run(out) == ([], 16)
