import json
import tomllib

import numpy as np
import pytest

from jobs.bench_tasks import BenchTasksConfig, bench_tasks, main, read_models, read_tasks
from jobs.support.config import parse
from model.tasks.baselines import BASELINES, overlap, words_and_pairs
from model.tasks.registry import task_class
from model.tasks.sequence import TextRow
from model.tasks.tag import TagRow
from tests.model.small_task import ROWS, write_jsonl

HEAD = 'num_epochs = 0.5\nbatch_size = 16\ndevice = "cpu"\nnum_threads = 1\n'


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A file with a task of each kind, its rows beside it."""
    folder = tmp_path_factory.mktemp("tasks")
    text = HEAD
    for task, rows in ROWS.items():
        write_jsonl(folder / f"{task}.jsonl", rows(80))
        write_jsonl(folder / f"{task}-dev.jsonl", rows(30, seed=9))
        text += f'[my_{task}]\ntask = "{task}"\ntrain = "{task}.jsonl"\ndev = "{task}-dev.jsonl"\n'
    (folder / "tasks.toml").write_text(text)
    return folder / "tasks.toml"


def test_every_model_is_trained_on_every_task_and_one_table_is_written(tasks, encoder, tmp_path, capsys):
    words = [str(tasks), "--model", f"small={encoder}", "--model", "random", "--out", str(tmp_path)]
    assert main(words) == 0
    table = (tmp_path / "results.md").read_text()
    assert table in capsys.readouterr().out
    lines = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert lines[0] == [
        "task",
        "dev rows",
        "metric",
        "majority",
        "tf-idf",
        "word overlap",
        "word memory",
        "closest ending",
        "tf-idf vectors",
        "small",
        "random",
    ]
    by_task = {line[0]: dict(zip(lines[0], line)) for line in lines[2:]}
    assert by_task.keys() == {f"my_{task}" for task in ROWS}
    assert by_task["my_span"]["majority"] == "–" and by_task["my_tag"]["tf-idf"] == "–"
    assert float(by_task["my_classify"]["tf-idf"]) == 1 and float(by_task["my_tag"]["word memory"]) == 1
    assert float(by_task["my_multilabel"]["tf-idf"]) == 1 > float(by_task["my_multilabel"]["majority"]) > 0
    assert 0 < float(by_task["my_choice"]["closest ending"]) < 1 and by_task["my_choice"]["tf-idf"] == "–"
    assert float(by_task["my_regress"]["tf-idf"]) > 0.9 and by_task["my_regress"]["majority"] == "0.000"
    content = json.loads((tmp_path / "results.json").read_text())
    for task in ROWS:
        measured = content[f"my_{task}"]
        for model in ("small", "random"):
            finetuned = json.loads((tmp_path / model / f"my_{task}" / "results.json").read_text())
            assert measured["mean"][model] == finetuned["metrics"]
            assert by_task[f"my_{task}"][model] == f"{finetuned['metrics'][measured['metric']]:.3f}"
    settings = tomllib.loads((tmp_path / "random/my_pair/config.toml").read_text())
    assert settings["random_weights"] is True and settings["model"] == str(encoder) and settings["num_epochs"] == 0.5
    # once more: nothing is trained again, and the table is the same
    before = (tmp_path / "small/my_tag/metrics.jsonl").stat().st_mtime_ns
    assert main(words) == 0
    assert (tmp_path / "results.md").read_text() == table
    assert (tmp_path / "small/my_tag/metrics.jsonl").stat().st_mtime_ns == before


def test_several_seeds_have_a_mean_and_a_deviation(tasks, encoder, tmp_path):
    one = tmp_path / "one.toml"
    rows = f'train = "{tasks.parent / "classify.jsonl"}"\ndev = "{tasks.parent / "classify-dev.jsonl"}"\n'
    one.write_text(f'{HEAD}seeds = [1, 2]\n[a]\ntask = "classify"\n{rows}')
    main([str(one), "--model", str(encoder), "--out", str(tmp_path / "out")])
    assert " ± " in (tmp_path / "out/results.md").read_text()
    content = json.loads((tmp_path / "out/results.json").read_text())
    assert content["a"]["deviation"]["encoder"]["accuracy"] >= 0


def predict_baselines(task: str, *arguments) -> dict[str, np.ndarray]:
    return {name: BASELINES[name](*arguments) for name in task_class(task).baselines}


def test_baselines_equal_a_count_by_hand():
    rows = [TextRow("", None, text, None, None) for text in ("a good film", "a bad film", "good !", "bad !", "so good")]
    labels = np.array([1, 0, 1, 0, 1])
    found = predict_baselines("classify", rows, labels, rows[:2], 2)
    assert {name: values.tolist() for name, values in found.items()} == {"majority": [1, 1], "tf-idf": [1, 0]}
    pair = TextRow("", None, "Where is Paris?", "paris is here", None)
    assert overlap(pair) == [2 / 4, 2 / 3]
    assert words_and_pairs("In 北京!") == ["in", "北", "京", "!", "in 北", "北 京", "京 !"]
    tagged = [TagRow("", None, ["in", "paris"], None, ["O", "B"]), TagRow("", None, ["in", "may"], None, ["O", "O"])]
    found = predict_baselines(
        "tag", tagged, np.array([1, 0, 1, 1]), [TagRow("", None, ["paris", "new", "in"], None, None)], 3
    )
    assert {name: values.tolist() for name, values in found.items()} == {
        "majority": [1, 1, 1],
        "word memory": [0, 1, 1],
    }
    assert predict_baselines("span", [], np.zeros(0), [], 0) == {}


@pytest.mark.parametrize(
    "content, message",
    [
        ("num_epochs = 3\n", "has no task: expected a table"),
        ("[a\n", "not valid TOML"),
        ('[a]\ntask = "classify"\ntrain = "t"\n', r"\[a\] has no dev"),
        ('[a]\ntask = "classify"\ntrain = "t"\ndev = "d"\nmodel = "m"\n', r"\[a\] model is set by the command"),
        ('[a]\ntask = "classify"\ntrain = "t"\ndev = "d"\nnum_epoch = 2\n', "unknown key 'a.num_epoch': did you mean"),
        ('[a]\ntask = "classify"\ntrain = "t"\ndev = "d"\nnum_epochs = "2"\n', "a.num_epochs = '2': expected a number"),
        ('["../a"]\ntask = "classify"\ntrain = "t"\ndev = "d"\n', r"\[../a\] is also the name of a folder"),
    ],
)
def test_a_file_of_tasks_that_cannot_be_read_is_refused(content, message, tmp_path):
    (tmp_path / "tasks.toml").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_tasks(tmp_path / "tasks.toml")


def test_models_have_distinct_names(tmp_path):
    assert read_models(["runs/a", "b=runs/x", "random"]).keys() == {"a", "b", "random"}
    assert str(read_models(["random", "runs/a"])["random"]) == "runs/a"
    for words, message in {
        ("a/run", "b/run"): "the name 'run' is reserved, used twice or not a name: give NAME=PATH",
        ("random",): "give that model, too, with a second --model",
        ("random=runs/a",): "the name 'random' is reserved",
        ("majority=runs/a",): "the name 'majority' is reserved",
        ("a/b=c",): "the name 'a/b' is reserved",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_models(words)
    words = ["t.toml", "--model", "a", "--model", "b", "--out", "o"]
    assert parse(BenchTasksConfig, words, "test").model == ("a", "b")


def test_an_error_in_the_last_task_is_raised_before_the_first_is_trained(tasks, encoder, tmp_path):
    bad = tasks.with_name("bad.toml")
    bad.write_text(tasks.read_text() + '[last]\ntask = "classify"\ntrain = "classify.jsonl"\ndev = "nowhere.jsonl"\n')
    with pytest.raises((ValueError, OSError), match="nowhere.jsonl"):
        list(bench_tasks(BenchTasksConfig(tasks=bad, model=(str(encoder),), out=tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_refused(tasks, encoder, tmp_path):
    (tmp_path / "results.json").write_text("mine")
    with pytest.raises(ValueError, match=r"holds results.json, which `bertloom bench-tasks` did not write: give a new"):
        main([str(tasks), "--model", str(encoder), "--out", str(tmp_path)])
    assert (tmp_path / "results.json").read_text() == "mine"
