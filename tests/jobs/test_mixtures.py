"""Training on several data sets: the same batches in any layout and after any stop, exact counts, and clear refusals."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.pretrain import pretrain
from jobs.support.config import parse
from jobs.support.pretrain_config import PretrainConfig
from jobs.support.pretraining import Pretraining
from jobs.verify import verify_run
from model.distributed import Ranks
from model.loading.batches import BatchReader
from model.loading.data import DataSet
from model.loading.data_sets import DataSets, LegReader
from model.loading.remask import remasking_of
from model.loading.stream import continue_legs, mixture_of
from model.runs.metrics import read_metrics
from model.runs.state import TrainingState, read_state
from tests.jobs.small_run import VOCABULARY, learnt, make_data, numbers, run_config, train_lines

SHARES = ("web={web}:0.6", "{zh}:0.3", "pep={pep}:0.1:epochs=2")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    """Three data sets of different sizes, lengths and numbers of copies."""
    folder = tmp_path_factory.mktemp("mixture")
    return {
        "web": make_data(folder / "web", rows=(400, 390), seed=1),
        "zh": make_data(folder / "zh", rows=(130,), num_validation=30, seed=2),
        "pep": make_data(folder / "pep", rows=(40, 35, 42), num_validation=12, seed=3),
    }


def mixed(data: dict[str, Path], out: Path, words: tuple[str, ...] = SHARES, **changes) -> PretrainConfig:
    of_data = {"data": tuple(word.format(**data) for word in words), "temperature": changes.pop("temperature", None)}
    return replace(run_config(data["web"], out, **{"save_every": 8, "eval_every": 10} | changes), **of_data)


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory) -> Path:
    """A finished run of 1,600 examples, in which pep is used up."""
    out = tmp_path_factory.mktemp("mixture") / "unbroken"
    pretrain(mixed(data, out, batch_size=32, num_steps=50))
    return out


def test_a_mixture_reads_what_was_asked_and_says_so(data, unbroken, capsys):
    assert verify_run(unbroken) == ([], 50)
    lines = train_lines(unbroken)
    for line in lines:
        assert sum(line["tokens_by_source"].values()) == line["tokens"]
        assert line["loss_by_source"].keys() <= {"web", "zh", "pep"}
    state = read_state(unbroken / "checkpoints/step-00000050", TrainingState)
    assert state.progress.tokens_by_source == lines[-1]["tokens_by_source"]
    sources = {source.name: source for source in state.progress.legs[0].sources}
    assert [source.share for source in sources.values()] == [0.6, 0.3, 0.1]
    assert (sources["pep"].limit, sources["web"].limit) == (75, None)
    pep = DataSet(data["pep"]).examples("train", 32)
    assert lines[-1]["tokens_by_source"]["pep"] == pep.shards.tokens[pep.shards.copies < 2].sum()
    evaluation = [line for line in numbers(unbroken) if line["split"] == "validation"][-1]
    assert evaluation["loss_by_source"].keys() == {"web", "zh", "pep"}
    assert evaluation["num_examples"] == 24 + 12 + 4


def test_the_start_announces_shares_epochs_and_where_a_data_set_ends(data, tmp_path, capsys):
    pretrain(mixed(data, tmp_path / "run", batch_size=32, num_steps=40))
    printed = capsys.readouterr().out
    assert "length 32, web: 790 examples in 2 copies, share of the tokens 0.6, read for " in printed
    assert "pep is used up at about step 32, after 1,024 examples of all data sets; its share then goes" in printed
    assert "to the others: web 0.6667, zh 0.3333" in printed


@pytest.mark.slow
def test_tokens_are_within_four_standard_errors_of_the_shares(data, tmp_path):
    pretrain(mixed(data, tmp_path / "run", ("{web}:0.7", "{zh}:0.3"), batch_size=64, num_steps=200, log_every=100))
    [leg] = read_state(tmp_path / "run/checkpoints/step-00000200", TrainingState).progress.legs
    assert [line["step"] for line in train_lines(tmp_path / "run")] == [100, 200]
    for line in train_lines(tmp_path / "run"):
        num_items = leg.item_at(line["step"])
        for source, count in zip(leg.sources, mixture_of(leg).num_before(num_items), strict=True):
            examples = DataSet(data[source.name]).examples("train", 32)
            rows = np.arange(examples.rows_per_copy[0])
            deviation = examples.read(np.zeros_like(rows), rows, with_tokens=False)["lengths"].std()
            unfinished = num_items % 1024 * (count / num_items) * (1 - count / num_items)  # a block that has begun
            error = np.sqrt(deviation**2 * count + source.mean_tokens**2 * unfinished)
            assert abs(line["tokens_by_source"][source.name] - source.share * line["tokens"]) < 4 * error


class Killed(BaseException):
    """The process ends here, and saves nothing."""


def test_a_run_that_is_killed_often_equals_the_unbroken_run_bit_for_bit(data, unbroken, tmp_path, monkeypatch):
    out, really = tmp_path / "run", Pretraining.train_step
    for kill in [*sorted(np.random.default_rng(20).choice(50, 5, replace=False).tolist()), None]:

        def train_step(self, batch, *, step, kill=kill, **values):
            if step == kill:
                raise Killed
            return really(self, batch, step=step, **values)

        monkeypatch.setattr(Pretraining, "train_step", train_step)
        with pytest.raises(Killed) if kill is not None else nullcontext():
            pretrain(mixed(data, out, batch_size=32, num_steps=50))
    assert numbers(out) == numbers(unbroken)
    assert learnt(out) == learnt(unbroken)
    assert verify_run(out) == ([], 50)


def test_the_configuration_of_a_run_is_a_preset_of_it(data, unbroken):
    again = parse(PretrainConfig, [str(unbroken / "config.toml")], "bertloom pretrain")
    assert again == mixed(data, unbroken, batch_size=32, num_steps=50)


def test_a_run_with_one_data_set_has_no_trace_of_mixtures(data, tmp_path):
    pretrain(run_config(data["web"], tmp_path / "run"))
    content = json.loads((tmp_path / "run/checkpoints/step-00000006/state.json").read_text())
    assert "tokens_by_source" not in content["state"]["progress"]
    assert "sources" not in content["state"]["progress"]["legs"][0]
    assert "shares" not in content["state"]["schedule"]
    assert not any("by_source" in key for line in read_metrics(tmp_path / "run/metrics.jsonl") for key in line)


@pytest.mark.parametrize(
    ("words", "changes", "message"),
    [
        (("{web}:0.5", "{web}:0.5"), {}, "given twice"),
        (("{web}:0.5", "b={web}x:0.5"), {}, "the folder does not exist"),
        (("{web}:0", "{zh}:0"), {}, "all shares are 0"),
        (("{web}:0.5", "{pep}:0.5"), {"batch_size": 64}, r"pep \(.*\) has 35 training examples of length 32 in a copy"),
        (("{web}:0.5", "{zh}:0.5"), {"num_epochs": 2.0}, "num_epochs=2 cannot be used with several data sets"),
        (("{web}:0.5:epochs=1", "{zh}:0.5:epochs=1"), {}, "web, zh have 530 examples of length 32 within their limits"),
        (
            ("{web}:1:epochs=1", "{zh}:1:epochs=1"),
            {"num_tokens": 999},
            "web, zh all have limits of epochs, and with a length",
        ),
        (("{web}:1:epochs=1", "{zh}:0"), {"num_tokens": 999}, "data: web all have limits"),
        (("{web}:1:epochs=1e-9", "{zh}:0"), {"num_tokens": 999}, "data: web all have limits"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_the_start(data, tmp_path, words, changes, message):
    with pytest.raises(ValueError, match=message):
        given = {} if changes.keys() & {"num_epochs", "num_tokens"} else {"num_steps": 40}
        pretrain(mixed(data, tmp_path / "run", words, **{"batch_size": 16} | given | changes))
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").glob("c*"))


def test_data_sets_that_do_not_fit_together_are_refused(data, tmp_path):
    other = make_data(tmp_path / "other", vocabulary=VOCABULARY + b"more\n")
    with pytest.raises(
        ValueError, match=r"the tokenizer of other \(.*\) differs from the tokenizer of web \(.*same vocabulary"
    ):
        pretrain(mixed(data | {"other": other}, tmp_path / "run", ("{web}:0.5", "{other}:0.5")))
    longer = make_data(tmp_path / "longer", max_seq_lengths=(64,), seed=5)
    with pytest.raises(
        ValueError, match=r"the shortest examples of web have max_seq_length=32, and the shortest of longer 64"
    ):
        pretrain(mixed(data | {"longer": longer}, tmp_path / "run", ("{web}:0.5", "{longer}:0.5")))
    with pytest.raises(ValueError, match="longer has no train examples of max_seq_length=32: it has 64"):
        pretrain(mixed(data | {"longer": longer}, tmp_path / "run", ("{web}:0.5", "{longer}:0.5"), max_seq_length=32))
    copied = shutil.copytree(data["web"], tmp_path / "copied")
    with pytest.raises(ValueError, match=r"copied \(.*\) and web \(.*\) have the same shards"):
        pretrain(mixed(data | {"copied": copied}, tmp_path / "run", ("{web}:0.5", "{copied}:0.5")))


def test_shares_and_data_sets_change_only_with_permission_and_each_data_set_goes_on(data, tmp_path, capsys):
    out = tmp_path / "run"
    pretrain(run_config(data["web"], out, num_steps=6, batch_size=16))  # items 0 to 95 of web
    both = ("{web}:0.6", "{zh}:0.4")
    with pytest.raises(ValueError, match="the data sets are not those .*permit the change with --allow-change data"):
        pretrain(mixed(data, out, both, num_steps=12, allow_change=("num_steps",)))
    pretrain(mixed(data, out, both, num_steps=12, allow_change=("num_steps", "data")))
    other = ("{web}:0.5", "{zh}:0.5:epochs=3")
    message = "shares is web:0.5 zh:0.5:epochs=3, but this run began with web:0.6 zh:0.4: .* --allow-change shares"
    with pytest.raises(ValueError, match=message):
        pretrain(mixed(data, out, other, num_steps=12, allow_change=("num_steps",)))
    pretrain(mixed(data, out, other, num_steps=20, allow_change=("num_steps", "shares")))
    legs = read_state(out / "checkpoints/step-00000020", TrainingState).progress.legs
    assert [leg.step for leg in legs] == [0, 6, 12]
    before = mixture_of(legs[1]).num_before(96)
    assert [source.first for source in legs[1].sources] == [96, 0]
    assert [source.first for source in legs[2].sources] == [96 + before[0], before[1]]
    assert legs[2].sources[1].limit == 3 * 130
    assert verify_run(out) == ([], 20)
    assert verify_run(out, [data["zh"], data["web"]]) == ([], 20)
    faults, steps = verify_run(out, data["web"])
    assert steps == 6 and "step 7: the run read another data set than" in faults[0] and "for zh" in faults[0]
    tokens = train_lines(out)[-1]
    assert sum(tokens["tokens_by_source"].values()) == tokens["tokens"] - train_lines(out)[5]["tokens"]
    assert verify_run(out, last_steps=5) == ([], 5)


def test_a_temperature_gives_shares_by_the_sizes(data, tmp_path, capsys):
    pretrain(mixed(data, tmp_path / "run", ("{web}", "{zh}"), num_steps=2, temperature=0.5))
    tokens = {name: DataSet(data[name]).examples("train", 32).num_tokens for name in ("web", "zh")}
    ratio = np.sqrt((tokens["web"] / 2) / tokens["zh"])
    sources = read_state(tmp_path / "run/checkpoints/step-00000002", TrainingState).progress.legs[0].sources
    assert sources[0].share / sources[1].share == pytest.approx(ratio, rel=1e-4)
    with pytest.raises(ValueError, match="temperature is 0.7, but this run began with 0.5"):
        pretrain(mixed(data, tmp_path / "run", ("{web}", "{zh}"), num_steps=2, temperature=0.7))


def test_wrong_counts_of_a_data_set_are_a_fault(data, unbroken, tmp_path):
    run = Path(shutil.copytree(unbroken, tmp_path / "run"))
    text = (run / "metrics.jsonl").read_text()
    line = train_lines(run)[29]
    wrong = line["tokens_by_source"] | {"zh": line["tokens_by_source"]["zh"] + 1}
    was, now = (json.dumps({"tokens_by_source": value})[1:-1] for value in (line["tokens_by_source"], wrong))
    assert text.count(was) == 1
    (run / "metrics.jsonl").write_text(text.replace(was, now))
    faults, steps = verify_run(run)
    assert steps == 50 and len(faults) == 1
    assert faults[0].startswith("step 30: metrics.jsonl has tokens_by_source {'web': ")


def test_the_examples_of_a_bad_step_are_listed_by_data_set(data, tmp_path):
    with pytest.raises(ValueError, match=r"its examples are rows .* of web; rows .* of zh; rows .* of pep \(all in"):
        pretrain(mixed(data, tmp_path / "run", num_steps=9, batch_size=32, learning_rate=1.0, spike_factor=1.0001))
    [line] = map(json.loads, (tmp_path / "run/bad_steps.jsonl").read_text().splitlines())
    assert {name: len(rows) > 0 for name, rows in line["examples"].items()} == dict.fromkeys(("web", "zh", "pep"), True)
    assert sum(map(len, line["examples"].values())) == 32


@pytest.mark.parametrize("micro_batch_size", [32, 5])
def test_new_masks_do_not_depend_on_the_division_and_keep_data_sets_apart(data, micro_batch_size):
    sets = DataSets({name: DataSet(path) for name, path in data.items()})
    config = mixed(data, Path("run"), num_steps=9, batch_size=32, remask=True)
    [phase] = config.schedule(sets).phases
    [leg] = continue_legs([], 0, **config.leg_settings(sets, phase))
    found = []
    for size in (32, micro_batch_size):
        remasking = remasking_of(sets.first)
        with BatchReader(sets, [leg], size, Ranks(device=torch.device("cpu")), remasking) as reader:
            batch = reader.read(leg, 3)
        masks = {}
        for part in batch.micro_batches:
            edges = part.cu_seqlens.tolist()
            positions = part.masked_positions.numpy()
            for number, row in enumerate(part.rows.tolist()):
                own = positions[(positions >= edges[number]) & (positions < edges[number + 1])] - edges[number]
                masks[tuple(row)] = own.tolist()
        found.append(masks)
    assert found[0] == found[1] and len(found[0]) == 32
    keys = [LegReader(sets.examples_of(leg), leg).keys_of(np.array([copy]))[0][0] for copy in (0, 1, 2, 3)]
    assert keys[0] == keys[1] and len({*map(int, keys)}) == 3


def test_each_length_has_a_mixture_of_its_own(data, tmp_path):
    pretrain(mixed(data, tmp_path / "run", num_steps=30, batch_size=16, phases=("32:0.4", "64:0.3:8", "32:0.3:8")))
    legs = read_state(tmp_path / "run/checkpoints/step-00000030", TrainingState).progress.legs
    assert [(leg.max_seq_length, leg.step, leg.item) for leg in legs] == [(32, 0, 0), (64, 12, 0), (32, 21, 0)]
    assert [source.first for source in legs[1].sources] == [0, 0, 0]
    assert [source.first for source in legs[2].sources] == mixture_of(legs[0]).num_before(12 * 16)
    assert verify_run(tmp_path / "run") == ([], 30)
    assert train_lines(tmp_path / "run")[-1]["tokens_by_source"].keys() == {"web", "zh", "pep"}
