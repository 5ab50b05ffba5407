"""Phases with data sets of their own: what each reads, where it goes on, limits, temperatures, and how a run resumes."""

import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bertloom.json_files import read_json
from jobs.browser.run import BrowsedRun
from jobs.browser.step_rows import plan_step
from jobs.pretrain import pretrain
from jobs.support.config import dump
from jobs.support.pretrain_config import PretrainConfig
from jobs.verify import verify_run
from model.loading.data import DataSet
from model.loading.data_sets import DataSets, LegReader
from model.loading.remask import remasking_of, remasking_of_all
from model.loading.stream import START, extend, mixture_of, rows_sum
from model.runs.state import TrainingState, read_state
from tests.jobs.small_run import CODE, learnt, make_data, phases_config, train_lines
from tests.model.synthetic import write_manifest
from tests.ranks import finish, start_ranks

HALVES = "[[phase]]\nshare = 0.5\n{}\n[[phase]]\nshare = 0.5\n{}\n"


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
    return phases_config(f"web={web}", out, table, **changes)


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


def test_browse_knows_what_the_steps_of_every_phase_will_read(mixed, mixed_run, tmp_path):
    web, books, _ = mixed
    (tmp_path / "begun").mkdir()
    shutil.copy(mixed_run / "config.toml", tmp_path / "begun")
    legs = read_state(mixed_run / "checkpoints/step-00000016", TrainingState).progress.legs
    data_sets = DataSets({"web": DataSet(web), "books": DataSet(books)})
    for folder in (tmp_path / "begun", mixed_run):
        run = BrowsedRun(folder)
        assert [source.name for source in run.sources] == ["web", "books"]
        for step, leg in ((1, legs[0]), (8, legs[0]), (9, legs[1]), (12, legs[1]), (13, legs[2]), (16, legs[2])):
            assert plan_step(run, step, lambda: data_sets) == (leg, True)


@pytest.mark.slow
def test_kills_over_the_borders_of_phases_change_nothing(mixed, mixed_run, tmp_path):
    out, preset = tmp_path / "run", tmp_path / "preset.toml"
    preset.write_text(dump(mixed_config(mixed, out, save_every=1)))
    for step in (8, 12):  # the last step of a phase
        process = subprocess.Popen([sys.executable, "-c", CODE, str(preset)], stdout=subprocess.DEVNULL)
        while process.poll() is None and not (out / f"checkpoints/step-{step:08d}").exists():
            time.sleep(0.01)
        process.kill()
        process.wait()
    assert subprocess.run([sys.executable, "-c", CODE, str(preset)], stdout=subprocess.DEVNULL).returncode == 0
    assert train_lines(out) == train_lines(mixed_run) and learnt(out) == learnt(mixed_run)
    assert verify_run(out) == ([], 16)


def test_a_limit_of_epochs_counts_over_all_phases(mixed, tmp_path, capsys):
    web, books, _ = mixed
    data = f'data = ["web={web}:0.8", "books={books}:0.2:epochs=4"]'
    (tmp_path / "table.toml").write_text(HALVES.format(data, data + "\nmasked_lm_prob = 0.05"))
    changes = {"num_steps": 48, "batch_size": 64, "save_every": 100, "micro_batch_size": 64}
    pretrain(phases_config(web, tmp_path / "run", str(tmp_path / "table.toml"), **changes))
    state = read_state(tmp_path / "run/checkpoints/step-00000048", TrainingState)
    first, last = state.progress.legs
    before, limit = mixture_of(first).num_before(first.item_at(24))[1], last.sources[1].limit
    assert last.sources[1].first == before and 0 < before < limit == 440
    assert before + mixture_of(last).num_before(last.item_at(48))[1] == limit
    printed = capsys.readouterr().out
    assert "books is used up at about step" in printed and " examples of all data sets since step 24; its" in printed
    assert verify_run(tmp_path / "run") == ([], 48)


def test_a_data_set_that_an_earlier_phase_has_used_up_is_announced_and_has_no_share(mixed, tmp_path, capsys, caplog):
    web, books, _ = mixed
    more = make_data(tmp_path / "more", rows=(60, 60), seed=9)
    first = f'data = ["web={web}:0.5", "books={books}:0.5:epochs=0.1"]'
    second = f'data = ["web={web}:0.5", "books={books}:0.3:epochs=0.1", "{more}:0.2:epochs=0.1"]'
    (tmp_path / "table.toml").write_text(HALVES.format(first, second + "\nmasked_lm_prob = 0.05"))
    pretrain(phases_config(web, tmp_path / "run", str(tmp_path / "table.toml"), num_steps=160))
    assert "--data is not read, because each phase of --phases names its own data sets" in caplog.messages
    printed = capsys.readouterr().out
    assert "books is used up before step 81; its share then goes to the others: web 0.7143, more 0.2857" in printed
    assert "more is used up at about step " in printed
    assert "examples of all data sets since step 80; its share then goes to the others: web 1\n" in printed
    assert verify_run(tmp_path / "run") == ([], 160)


def test_the_temperature_of_a_phase_gives_its_shares(mixed, tmp_path):
    web, books, _ = mixed
    (tmp_path / "table.toml").write_text(HALVES.format("temperature = 1.0", "temperature = 0.0"))
    table = str(tmp_path / "table.toml")
    pretrain(phases_config((f"web={web}", f"books={books}"), tmp_path / "run", table, num_steps=2))
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
        ("", 'data = ["{web}:0.5", "{books}"]', "phase 2: data: web has a share and books has none: give"),
        ("", 'data = ["{books}:0.5:epochs=-1"]', "has epochs=-1, expected a number above 0"),
        ("", "data = []\ntemperature = 2.0", "phase 2: temperature=2 must be from 0 to 1"),
        ("max_seq_length = 32", 'data = ["{books}"]\nmax_seq_length = 48', "no train examples of max_seq_length=48"),
    ],
)
def test_data_sets_of_a_phase_that_cannot_be_are_refused(mixed, tmp_path, first, second, message):
    web, books, _ = mixed
    (tmp_path / "table.toml").write_text(HALVES.format(first, second.format(web=web, books=books)))
    with pytest.raises(ValueError, match=message):
        pretrain(phases_config(str(web), tmp_path / "run", str(tmp_path / "table.toml")))


def with_rate(data_set: Path, folder: Path, masked_lm_prob: float) -> Path:
    """Return a copy of a data set whose manifest has this masking rate."""
    made = Path(shutil.copytree(data_set, folder))
    manifest = read_json(made / "manifest.json")
    manifest["configuration"]["masked_lm_prob"] = masked_lm_prob
    write_manifest(made, manifest)
    return made


def test_a_phase_without_remask_names_a_data_set_that_was_made_with_its_rate(mixed, tmp_path):
    web, books, _ = mixed
    made = with_rate(books, tmp_path / "books", 0.3)
    (tmp_path / "table.toml").write_text(HALVES.format("", f'data = ["{made}"]\nmasked_lm_prob = 0.3'))
    pretrain(phases_config(str(web), tmp_path / "run", str(tmp_path / "table.toml"), num_steps=2, remask=False))
    (tmp_path / "table.toml").write_text(HALVES.format("", f'data = ["{made}"]\nmasked_lm_prob = 0.15'))
    with pytest.raises(
        ValueError, match="phase 2 has masked_lm_prob=0.15, but the masks of .*books were drawn with 0.3"
    ):
        pretrain(phases_config(str(web), tmp_path / "other", str(tmp_path / "table.toml"), num_steps=2, remask=False))


def test_rates_of_all_phases_replace_different_rates_of_data_sets(mixed, tmp_path):
    web, books, _ = mixed
    made = with_rate(books, tmp_path / "made", 0.3)
    data, table = (f"{web}:0.5", f"{made}:0.5"), tmp_path / "table.toml"
    table.write_text(HALVES.format("masked_lm_prob = 0.4", "masked_lm_prob = 0.3"))
    swapped = (data[1], data[0])
    for name, words in (("run", data), ("swapped", swapped)):
        pretrain(phases_config(words, tmp_path / name, str(table), num_steps=4, batch_size=8))
    assert [line["tokens_by_source"].keys() for line in train_lines(tmp_path / "run")] == [{"web", "made"}] * 4
    table.write_text(HALVES.format("masked_lm_prob = 0.4", ""))
    with pytest.raises(ValueError, match=r"masked_lm_prob is 0.15 and 0.3\): give each phase a masked_lm_prob, "):
        pretrain(phases_config(data, tmp_path / "refused", str(table), num_steps=4, batch_size=8))


def test_masks_at_the_rate_of_a_phase_do_not_depend_on_the_order_of_data_sets_with_different_rates(mixed):
    web, _, _ = mixed
    own = remasking_of(DataSet(web))
    other = replace(own, masked_lm_prob=0.3, max_predictions={32: 3})
    found = [
        remasking_of_all(dict(pair), has_rates=True).counts(32, 0.3).tolist()
        for pair in ({"a": own, "b": other}, {"a": other, "b": own})
    ]
    assert found[0] == found[1] and max(found[0]) == 10  # 0.3 of 32 tokens
