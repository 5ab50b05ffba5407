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

import numpy as np
import pytest

from bertloom.json_files import read_json
from jobs.pretrain import pretrain
from jobs.support import pretraining
from jobs.support.config import dump, parse
from jobs.support.phase_tables import PhaseTable, phases_of, read_table, table_names
from jobs.support.pretrain_config import PretrainConfig
from jobs.verify import verify_run
from model.loading.data import DataSet
from model.loading.data_sets import LegReader
from model.loading.stream import START, extend, mixture_of, rows_sum
from model.runs.state import TrainingState, read_state
from tests.jobs.small_run import learnt, make_data, run_config, train_lines
from tests.model.synthetic import write_manifest
from tests.ranks import finish, start_ranks

CODE = "import sys; from jobs.pretrain import main; sys.exit(main(sys.argv[1:]))"
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


def config(data: Path, out: Path, table: str, **changes) -> PretrainConfig:
    values = {"num_steps": 16, "phases": (table,), "remask": True, "keep_checkpoints": 99, "warmup_ratio": 0.2}
    return run_config(data, out, **values | changes)


@pytest.fixture(scope="module")
def unbroken(data, table, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("phases") / "run"
    pretrain(config(data, out, table))
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
    assert [phase.decay for phase in plain] == [None, None], "without rates, --decay is that of the whole training"


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
            "phase 2 begins with the learning rate 0, with which the phase before it ends",
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
        (["--phases", "anealing"], "phases: 'anealing' is not of the form .* or one of annealing"),
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
        pretrain(config(data, tmp_path / "run", str(tmp_path / "table.toml"), **changes))
    assert not list((tmp_path / "run").glob("[!.]*"))


def test_a_phase_with_the_rate_of_its_data_set_needs_no_new_masks(data, tmp_path):
    (tmp_path / "table.toml").write_text(HALVES.format("masked_lm_prob = 0.15", ""))
    pretrain(config(data, tmp_path / "run", str(tmp_path / "table.toml"), num_steps=2, remask=False))
    state = read_state(tmp_path / "run/checkpoints/step-00000002", TrainingState)
    assert [leg.masked_lm_prob for leg in state.progress.legs] == [None]
    content = read_json(tmp_path / "run/checkpoints/step-00000002/state.json")
    assert [leg.keys() & {"masked_lm_prob"} for leg in content["state"]["progress"]["legs"]] == [set()]


def test_epochs_may_be_divided_into_phases_of_the_same_examples(data, tmp_path):
    pretrain(config(data, tmp_path / "run", "annealing", num_steps=None, num_epochs=1.0))
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
    pretrain(config(data, tmp_path / "run", table))
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
    pretrain(config(data, out, table))
    assert train_lines(out) == train_lines(unbroken) and learnt(out) == learnt(unbroken)


def test_another_table_is_refused_unless_it_is_allowed(data, table, tmp_path, unbroken):
    out = Path(shutil.copytree(unbroken, tmp_path / "run"))
    for name in ("step-00000012", "step-00000016"):
        shutil.rmtree(out / "checkpoints" / name)
    (tmp_path / "other.toml").write_text(TABLE.replace("0.05", "0.1"))
    with pytest.raises(
        ValueError, match="phases is .*masked_lm_prob=0.1.* but this run began with .* --allow-change phases"
    ):
        pretrain(config(data, out, str(tmp_path / "other.toml")))
    pretrain(config(data, out, str(tmp_path / "other.toml"), allow_change=("phases",)))
    state = read_state(out / "checkpoints/step-00000016", TrainingState)
    assert [leg.masked_lm_prob for leg in state.progress.legs] == [0.3, 0.15, 0.1]
    assert [change["name"] for change in state.changes] == ["phases"]
    assert train_lines(out)[:12] == train_lines(unbroken)[:12]
    assert [line["stream"] for line in train_lines(out)] == [line["stream"] for line in train_lines(unbroken)]
    assert verify_run(out) == ([], 16)


def words(data: Path, out: Path, table: str, num_steps: int = 16) -> list[str]:
    preset = out.parent / f"{out.name}.toml"
    preset.write_text(dump(config(data, out, table, num_steps=num_steps, save_every=1)))
    return [str(preset)]


def test_a_run_stopped_in_a_phase_under_two_ranks_is_finished_by_one(data, table, tmp_path, unbroken):
    out = tmp_path / "run"
    ended = finish(start_ranks(2, CODE, words(data, out, table)))
    assert [status for status, _, _ in ended] == [0, 0], ended
    for path in (out / "checkpoints").iterdir():
        if int(path.name[5:]) > 5:
            shutil.rmtree(path)
    pretrain(config(data, out, table))
    assert verify_run(out) == ([], 16)
    ours, theirs = train_lines(out), train_lines(unbroken)
    assert [(line["stream"], line["tokens"]) for line in ours] == [(line["stream"], line["tokens"]) for line in theirs]
    for line, twin in zip(ours, theirs, strict=True):
        assert line["loss"] == pytest.approx(twin["loss"], rel=1e-3)  # the masks are the same, too
        assert line["learning_rate"] == twin["learning_rate"]


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


# ---- data sets of phases

MIXED = """
[[phase]]
share = 0.5
max_seq_length = 32
masked_lm_prob = 0.3
decay = "constant"

[[phase]]
share = 0.25
max_seq_length = 32
data = ["web={web}:0.5", "books={books}:0.5"]

[[phase]]
share = 0.25
max_seq_length = 32
data = ["books={books}"]
masked_lm_prob = 0.05
decay = "sqrt"
"""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> tuple[Path, Path, str]:
    """Two data sets, and a table whose phases read the first, both, and the second."""
    folder = tmp_path_factory.mktemp("mixed")
    web, books = make_data(folder / "web"), make_data(folder / "books", rows=(120, 100), seed=5)
    (folder / "table.toml").write_text(MIXED.format(web=web, books=books))
    return web, books, str(folder / "table.toml")


@pytest.fixture(scope="module")
def mixed_run(mixed, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("mixed") / "run"
    pretrain(mixed_config(mixed, out))
    return out


def mixed_config(mixed, out: Path, **changes) -> PretrainConfig:
    web, _, table = mixed
    return config(f"web={web}", out, table, **changes)


def test_each_phase_reads_its_data_sets_and_goes_on_where_an_earlier_one_left_them(mixed, mixed_run):
    lines = train_lines(mixed_run)
    state = read_state(mixed_run / "checkpoints/step-00000016", TrainingState)
    firsts = [[(source.name, source.first) for source in leg.sources] for leg in state.progress.legs]
    counts = mixture_of(state.progress.legs[1]).num_before(64)
    assert firsts == [[("web", 0)], [("web", 128), ("books", 0)], [("books", counts[1])]]
    assert [leg.masked_lm_prob for leg in state.progress.legs] == [0.3, None, 0.05]
    tokens = [line["tokens_by_source"] for line in lines]
    assert all(sum(counts.values()) == line["tokens"] for counts, line in zip(tokens, lines))
    assert all(counts.get("books", 0) == 0 for counts in tokens[:8]) and tokens[11]["books"] > 0
    assert tokens[15]["web"] == tokens[11]["web"] and tokens[15]["books"] > tokens[11]["books"]
    assert verify_run(mixed_run) == ([], 16)


def test_the_rows_of_a_run_over_data_sets_of_phases_equal_a_plain_list(mixed, mixed_run):
    """What the twin lists: web in its order; then web and books as the mixture's items; then the rest of books."""
    web, books, _ = mixed
    data_sets = {"web": DataSet(web), "books": DataSet(books)}
    orders = {name: found.examples("train", 32).order(1, "global") for name, found in data_sets.items()}
    state = read_state(mixed_run / "checkpoints/step-00000016", TrainingState)
    read, expected = dict.fromkeys(data_sets, 0), START
    for leg, num_steps in zip(state.progress.legs, (8, 4, 4)):
        examples = [data_sets[source.name].examples("train", 32) for source in leg.sources]
        reader = LegReader(examples, leg)
        for step in range(leg.step, leg.step + num_steps):
            copies, rows = reader.order.items(leg.item_at(step), leg.item_at(step) + 16)
            own = reader.examples.own_copies(copies)
            for copy, row, number in zip(own, rows, reader.examples.sources_of(copies).tolist()):
                name = leg.sources[number].name
                twin = orders[name].items(read[name], read[name] + 1)
                assert ([copy], [row]) == tuple(part.tolist() for part in twin)  # each data set in its own order
                read[name] += 1
            expected = extend(expected, rows_sum(reader.examples.read(copies, rows), np.arange(16)))
    assert expected == state.progress.stream and sum(read.values()) == 16 * 16


@pytest.mark.parametrize("step", [4, 8, 12])
def test_a_run_over_data_sets_of_phases_goes_on_in_any_phase_to_the_same_bits(mixed, mixed_run, tmp_path, step):
    out = Path(shutil.copytree(mixed_run, tmp_path / "run"))
    for path in (out / "checkpoints").iterdir():
        if int(path.name[5:]) > step:
            shutil.rmtree(path)
    pretrain(mixed_config(mixed, out))
    assert train_lines(out) == train_lines(mixed_run) and learnt(out) == learnt(mixed_run)


def test_data_sets_of_phases_are_read_alike_by_two_ranks_and_then_one(mixed, mixed_run, tmp_path):
    out = tmp_path / "run"
    preset = tmp_path / "preset.toml"
    preset.write_text(dump(mixed_config(mixed, out, save_every=1)))
    ended = finish(start_ranks(2, CODE, [str(preset)]))
    assert [status for status, _, _ in ended] == [0, 0], ended
    for path in (out / "checkpoints").iterdir():
        if int(path.name[5:]) > 10:
            shutil.rmtree(path)
    pretrain(mixed_config(mixed, out))
    assert verify_run(out) == ([], 16)
    for line, twin in zip(train_lines(out), train_lines(mixed_run), strict=True):
        assert line["stream"] == twin["stream"] and line["tokens_by_source"] == twin["tokens_by_source"]
        assert line["loss"] == pytest.approx(twin["loss"], rel=1e-3)


def test_a_limit_of_epochs_counts_over_all_phases(mixed, tmp_path, capsys):
    web, books, _ = mixed
    data = f'data = ["web={web}:0.8", "books={books}:0.2:epochs=4"]'
    (tmp_path / "table.toml").write_text(HALVES.format(data, data + "\nmasked_lm_prob = 0.05"))
    changes = {"num_steps": 48, "batch_size": 64, "save_every": 100, "micro_batch_size": 64}
    pretrain(config(web, tmp_path / "run", str(tmp_path / "table.toml"), **changes))
    state = read_state(tmp_path / "run/checkpoints/step-00000048", TrainingState)
    first, last = state.progress.legs
    before, limit = mixture_of(first).num_before(first.item_at(24))[1], last.sources[1].limit
    assert last.sources[1].first == before and 0 < before < limit == 440
    assert before + mixture_of(last).num_before(last.item_at(48))[1] == limit
    assert "books is used up at about step" in capsys.readouterr().out
    assert verify_run(tmp_path / "run") == ([], 48)


def test_the_temperature_of_a_phase_gives_its_shares(mixed, tmp_path):
    web, books, _ = mixed
    (tmp_path / "table.toml").write_text(HALVES.format("temperature = 1.0", "temperature = 0.0"))
    table = str(tmp_path / "table.toml")
    pretrain(config((f"web={web}", f"books={books}"), tmp_path / "run", table, num_steps=2))
    state = read_state(tmp_path / "run/checkpoints/step-00000002", TrainingState)
    shares = [[source.share for source in leg.sources] for leg in state.progress.legs]
    assert shares[0][0] > 0.65 and shares[1] == [0.5, 0.5]


def test_other_shares_in_a_phase_are_refused_on_resuming(mixed, mixed_run, tmp_path):
    web, books, table = mixed
    out = Path(shutil.copytree(mixed_run, tmp_path / "run"))
    (tmp_path / "table.toml").write_text(MIXED.format(web=web, books=books).replace(":0.5", ":0.25", 1))
    with pytest.raises(
        ValueError, match="phases is .*data=web:0.25,books:0.5.* but this run began with .*data=web:0.5"
    ):
        pretrain(mixed_config((web, books, str(tmp_path / "table.toml")), out))


@pytest.mark.parametrize(
    "first, second, message",
    [
        ("", 'data = ["gone"]', "gone"),
        ("", 'data = ["other={web}"]', "has the names 'web' and 'other': give it the same name in all phases"),
        ("", 'data = ["{web}:0.5", "{books}"]', "web has a share and books has none: give each one, or none"),
        ("", 'data = ["{books}:0.5:epochs=-1"]', "has epochs=-1, expected a number above 0"),
        ("", "data = []\ntemperature = 2.0", "phase 2: temperature=2 must be from 0 to 1"),
        ("max_seq_length = 32", 'data = ["{books}"]\nmax_seq_length = 48', "no train examples of max_seq_length=48"),
    ],
)
def test_data_sets_of_a_phase_that_cannot_be_are_refused(mixed, tmp_path, first, second, message):
    web, books, _ = mixed
    (tmp_path / "table.toml").write_text(HALVES.format(first, second.format(web=web, books=books)))
    with pytest.raises(ValueError, match=message):
        pretrain(config(str(web), tmp_path / "run", str(tmp_path / "table.toml")))


def test_a_phase_without_remask_names_a_data_set_that_was_made_with_its_rate(mixed, tmp_path):
    web, books, _ = mixed
    made = Path(shutil.copytree(books, tmp_path / "books"))
    manifest = read_json(made / "manifest.json")
    manifest["configuration"]["masked_lm_prob"] = 0.3
    write_manifest(made, manifest)
    (tmp_path / "table.toml").write_text(HALVES.format("", f'data = ["{made}"]\nmasked_lm_prob = 0.3'))
    pretrain(config(str(web), tmp_path / "run", str(tmp_path / "table.toml"), num_steps=2, remask=False))
    (tmp_path / "table.toml").write_text(HALVES.format("", f'data = ["{made}"]\nmasked_lm_prob = 0.15'))
    with pytest.raises(
        ValueError, match="phase 2 has masked_lm_prob=0.15, but the masks of .*books were drawn with 0.3"
    ):
        pretrain(config(str(web), tmp_path / "other", str(tmp_path / "table.toml"), num_steps=2, remask=False))
