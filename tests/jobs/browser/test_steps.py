"""The examples of a step are those that training reads, in their order: of the past and the future, without torch."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from bertloom.manifest import DAMAGED
from jobs.browser import step_rows
from jobs.browser.run import BrowsedRun
from jobs.browser.step_rows import config_of, plan_step, rows_of_step, steps_of_tokens
from jobs.pretrain import pretrain
from model.loading.batches import BatchReader
from model.loading.data import DataSet
from model.loading.data_sets import DataSets, LegReader
from model.loading.stream import Leg
from tests.jobs.browser.page_reader import Reader
from tests.jobs.small_run import make_data, run_config
from tests.model.object_store import object_store

PHASES = ("32:0.5:8", "64:0.5:12")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two copies of two lengths: an epoch ends within a few steps."""
    return make_data(tmp_path_factory.mktemp("steps") / "data", rows=(45, 38), per_member=4)


@pytest.fixture
def read(monkeypatch):
    """What training reads while the test runs: for each step the sorted numbers of its examples."""
    found = {}
    really = BatchReader.read

    def recording(reader, leg, step):
        batch = really(reader, leg, step)
        rows = np.concatenate([part.rows for part in batch.micro_batches])
        found[step + 1] = sorted(reader.leg_reader(leg).examples.indices(rows[:, 0], rows[:, 1]).tolist())
        assert found[step + 1] == sorted(reader.indices(leg, step))
        return batch

    monkeypatch.setattr(BatchReader, "read", recording)
    return found


def shown(run, data, steps):
    """What the pages show: for each step the sorted numbers of its examples."""
    found, data_sets = {}, DataSets({"": DataSet(data)})
    for step in steps:
        planned = plan_step(BrowsedRun(run), step, lambda: data_sets)
        assert planned.is_certain
        rows = rows_of_step(data_sets, planned.leg, step, 0, planned.leg.batch_size)
        found[step] = sorted(rows.indices)
    return found


def only(run, folder, checkpoint=None):
    """A copy of a run as it was at a checkpoint, or before the first one."""
    folder.mkdir()
    shutil.copy(run / "config.toml", folder)
    if checkpoint:
        shutil.copytree(run / f"checkpoints/step-{checkpoint:08d}", folder / f"checkpoints/step-{checkpoint:08d}")
    return folder


@pytest.mark.parametrize("shuffle", ["global", "window:2"])
def test_past_and_future_steps_are_those_of_training_also_after_another_batch_size(data, read, tmp_path, shuffle):
    run = tmp_path / "run"
    changes = {"phases": PHASES, "shuffle": shuffle, "keep_checkpoints": 9, "save_every": 4}
    pretrain(run_config(data, run, num_steps=12, **changes))
    begun, after_four = only(run, tmp_path / "begun"), only(run, tmp_path / "after-four", 4)
    for place in (begun, after_four, run):
        assert shown(place, data, range(1, 13)) == read
    allowed = {"allow_change": ("phases", "num_steps", "batch_size")}
    pretrain(run_config(data, run, num_steps=20, **changes | {"phases": ("32:0.75:5", "64:0.25:7")}, **allowed))
    assert sorted(read) == list(range(1, 21)) and {len(rows) for rows in read.values()} == {8, 12, 5, 7}
    assert shown(run, data, range(1, 21)) == read
    assert shown(only(run, tmp_path / "after-twelve", 12), data, range(1, 21)) == read
    assert shown(only(run, tmp_path / "after-sixteen", 16), data, range(1, 21)) == read
    with pytest.raises(ValueError, match="step=21: the run has ended after 20 steps"):
        shown(run, data, [21])
    with pytest.raises(ValueError, match="step=21: the run ends after 20 steps"):
        shown(tmp_path / "after-twelve", data, [21])  # the checkpoint was the last one, until num_steps was changed


def test_a_run_that_continues_another_one_has_its_steps(data, read, tmp_path):
    pretrain(run_config(data, tmp_path / "first", num_steps=4, phases=PHASES))
    checkpoint = tmp_path / "first/checkpoints/step-00000004"
    allowed = {"allow_change": ("num_steps", "phases", "max_seq_length")}
    second = run_config(data, tmp_path / "second", resume_from=checkpoint, num_steps=9, phases=("64:1:6",), **allowed)
    pretrain(second)
    assert shown(only(tmp_path / "second", tmp_path / "begun"), data, range(1, 10)) == read


def test_a_run_that_counts_tokens_ends_its_phases_where_training_does(data, read, tmp_path, monkeypatch):
    pretrain(run_config(data, tmp_path / "run", num_tokens=9000, phases=("32:0.7:7", "64:0.3:5"), keep_checkpoints=99))
    lengths = [8 * len(rows) for rows in read.values()]
    assert len(set(lengths)) == 2 and len(read) > 40  # the first phase is longer than two epochs
    begun, after_eight = only(tmp_path / "run", tmp_path / "begun"), only(tmp_path / "run", tmp_path / "eight", 8)
    for place in (begun, after_eight, tmp_path / "run"):
        assert shown(place, data, read) == read
    monkeypatch.setattr(step_rows, "MAX_ROWS_READ", 0)
    monkeypatch.setattr(step_rows, "ROWS_PER_READ", 4)
    assert plan_step(BrowsedRun(begun), 1, lambda: DataSets({"": DataSet(data)})).is_certain
    late = plan_step(BrowsedRun(begun), len(read), lambda: DataSets({"": DataSet(data)}))
    assert not late.is_certain and late.leg.max_seq_length == 32


def test_a_run_on_a_clock_has_no_certain_steps_before_its_last_phase(data, tmp_path):
    run = tmp_path / "run"
    config = run_config(data, run, budget="1h", phases=PHASES)
    from jobs.support.config import dump

    run.mkdir()
    (run / "config.toml").write_text(dump(config))
    assert not plan_step(BrowsedRun(run), 1, lambda: DataSets({"": DataSet(data)})).is_certain
    page = Reader(run).get("r0/steps?step=7")
    assert "These are the examples if step 7 still has length 32" in page.text


@pytest.mark.parametrize("shuffle", ["global", "window:3"])
@pytest.mark.parametrize("wanted", [1, 20, 500, 1500, 5000])
def test_the_steps_of_a_number_of_tokens_equal_a_slow_count(data, shuffle, wanted, monkeypatch):
    monkeypatch.setattr(step_rows, "ROWS_PER_READ", 10)
    data_set = DataSet(data)
    examples = data_set.examples("train", 32)
    order = examples.order(1, shuffle)
    digest = data_set.shards_digest
    leg = Leg(step=3, max_seq_length=32, item=11, batch_size=6, seed=1, shuffle=shuffle, shards_digest=digest)
    steps = tokens = 0
    while tokens < wanted:
        start = leg.item_at(5 + steps)
        tokens += int(examples.read(*order.items(start, start + 6))["lengths"].sum())
        steps += 1
    assert steps_of_tokens(LegReader([examples], leg), 5, wanted) == (steps, tokens)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shown") / "run"
    pretrain(run_config(data, folder, num_steps=4, batch_size=25))
    return folder


def test_the_page_of_a_step_shows_its_batch_a_page_at_a_time_with_links(data, run):
    reader = Reader(run)
    links = []
    for number in (1, 2):
        page = reader.get(f"r0/steps?step=2&page={number}")
        links += [link for link in page.links if "/d0/examples/" in link]
    planned = plan_step(BrowsedRun(run), 2, lambda: DataSets({"": DataSet(data)}))
    found = rows_of_step(DataSets({"": DataSet(data)}), planned.leg, 2, 0, 25)
    assert links == [f"/token/d0/examples/{index}" for index in found.indices]
    assert found.epochs[0] == 0 and found.epochs[-1] == 1 and found.copies == found.epochs  # copy 0 has 45 rows
    assert "25 to 49 of the order of this length, from seed 1 (global)" in page.text and "epoch 1, copy 1" in page.text
    assert "/token/r0/steps?step=1" in page.links and "/token/r0/steps?step=3" in page.links
    assert "第 2 步的样本" in reader.get("r0/steps?step=2", language="zh").text


def test_the_last_step_has_no_link_to_a_next_one(data, run, tmp_path):
    reader, begun = Reader(run), only(run, tmp_path / "begun")
    for links in (reader.get("r0/steps?step=4").links, Reader(begun, data).get("r0/steps?step=4").links):
        assert "/token/r0/steps?step=3" in links and "/token/r0/steps?step=5" not in links
    longer = shutil.copytree(run, tmp_path / "longer")
    config = (longer / "config.toml").read_text()
    (longer / "config.toml").write_text(config.replace("num_steps = 4", "num_steps = 6"))
    assert "/token/r0/steps?step=5" in Reader(longer, data).get("r0/steps?step=4").links


def test_a_step_that_cannot_be_shown_gives_one_clear_line(data, run, tmp_path):
    reader = Reader(run)
    assert "step=5: the run has ended after 4 steps" in reader.get("r0/steps?step=5", 400).text
    assert "step=0: expected a whole number from 1 to" in reader.get("r0/steps?step=0", 400).text
    assert "page=3: expected a whole number from 1 to 2" in reader.get("r0/steps?step=1&page=3", 400).text
    other = make_data(tmp_path / "data", rows=(40,))
    changed = shutil.copytree(run, tmp_path / "changed")
    (changed / "config.toml").write_text((run / "config.toml").read_text().replace(str(data), str(other)))
    assert "Step 1 read another data set" in Reader(changed).get("r0/steps?step=1").text
    config = (changed / "config.toml").read_text().replace("num_steps = 4", "num_steps = 6")
    (changed / "config.toml").write_text(config)
    assert f"{other} has changed since the run read it" in Reader(changed).get("r0/steps?step=5", 400).text
    assert any("/d0/examples/" in link for link in Reader(data, changed).get("r0/steps?step=5").links)
    (changed / "config.toml").write_text(config.replace("allow_change = []", 'allow_change = ["data"]'))
    page = Reader(changed).get("r0/steps?step=5")
    assert "0 to 24 of the order" in page.text and any("/d0/examples/" in link for link in page.links)
    assert any("/d0/examples/" in link for link in Reader(data, changed).get("r0/steps?step=1").links)
    broken = only(run, tmp_path / "broken")
    (broken / "config.toml").write_text('seed = "x"\n')
    assert "seed = 'x': expected an integer" in Reader(broken, data).get("r0/steps?step=1", 400).text


def test_a_damaged_member_is_said_in_its_place(data, run, tmp_path):
    copy = shutil.copytree(data, tmp_path / "data")
    shard = copy / "train/seq32/copy0/00000.tar"  # the first two steps read all of this copy
    content = bytearray(shard.read_bytes())
    content[512:2048] = bytes(1536)
    shard.write_bytes(content)
    moved = shutil.copytree(run, tmp_path / "run")
    (moved / "config.toml").write_text((run / "config.toml").read_text().replace(str(data), str(copy)))
    texts = "".join(Reader(moved).get(f"r0/steps?step={step}&page={page}").text for step in (1, 2) for page in (1, 2))
    assert DAMAGED in texts and texts.count("example ") >= 50  # what `verify` advises, and the other examples


def test_bad_steps_lead_to_their_examples(data, run, tmp_path):
    bad = shutil.copytree(run, tmp_path / "bad")
    lines = [
        {"step": 2, "loss": "nan", "gradient_norm": "inf", "action": "skip", "examples": [3, 99999999, *range(20)]},
        {"step": 3, "loss": "<b>", "gradient_norm": "1.0", "action": "stop", "examples": [5]},
    ]
    (bad / "bad_steps.jsonl").write_text(f"{json.dumps(lines[0])}\n{{}}\n{json.dumps(lines[1])}\n")
    reader = Reader(bad)
    page = reader.get("r0/bad-steps")
    assert [row[:4] for row in page.rows[1:]] == [
        ["2", "nan", "inf", "went on"],
        ["", "Line 2 of bad_steps.jsonl is damaged."],
        ["3", "<b>", "1.0", "stopped"],
    ]
    assert "/token/d0/examples/3" in page.links and "/token/d0/examples/99999999" not in page.links
    assert "/token/r0/steps?step=2" in page.links and "all 22 examples" in page.text
    assert "There is none." in Reader(run).get("r0/bad-steps").text
    assert "/token/r0/bad-steps" in reader.get("r0/overview").links


def test_pages_of_runs_import_no_torch(run):
    code = (
        "import sys\nfrom pathlib import Path\nfrom tests.jobs.browser.page_reader import Reader\n"
        "reader = Reader(Path(sys.argv[1]))\n"
        "for name in ('overview', 'curves', 'curves/points', 'steps?step=3', 'bad-steps'): "
        "reader.client.get(f'/token/r0/{name}').raise_for_status()\n"
        "print(sorted({'torch', 'apache_beam'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_configuration_is_read_again_when_it_changes(data, run, tmp_path):
    copy = only(run, tmp_path / "copy")
    assert config_of(BrowsedRun(copy)).batch_size == 25
    text = (copy / "config.toml").read_text().replace("batch_size = 25", "batch_size = 30", 1)
    (copy / "config.toml").write_text(text)
    assert config_of(BrowsedRun(copy)).batch_size == 30


def test_the_steps_of_a_run_on_a_store_are_known_before_any_example_is_fetched(data, run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    copy = only(run, tmp_path / "copy", 4)
    with object_store() as store:
        config = (run / "config.toml").read_text().replace(str(data), store.upload(data, "bucket"))
        (copy / "config.toml").write_text(config)
        reader = Reader(copy)
        page = reader.get("r0/steps?step=2")
        local = [link for link in Reader(run).get("r0/steps?step=2").links if "/d0/examples/" in link]
        assert [link for link in page.links if "/d0/examples/" in link] == local
        assert not list((tmp_path / "cache").glob("**/*.arrow"))
        assert "/token/r0/steps?step=2&page=1&texts=1" in page.links
        assert "[MASK]" in reader.get("r0/steps?step=2&page=1&texts=1").text
