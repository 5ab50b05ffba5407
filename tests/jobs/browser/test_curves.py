"""The curves of runs: points that are read as the file grows, thinned without losing extremes, and their page."""

import json
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.browser import curve_points
from jobs.browser.curve_points import CurvePoints
from jobs.browser.metrics_lines import KEYS, parse_lines
from jobs.browser.pages import chinese_texts
from jobs.support.curves import PANELS, SOURCE_PANELS
from tests.jobs.browser.page_reader import Reader


def line(step, split="train", **values):
    return {"step": step, "split": split, "seconds": step / 2, **values}


def train_line(step, **values):
    return line(step, loss=8.0 / step, learning_rate=1e-3, tokens=100 * step, nsp_loss=0.0, stream="0" * 16, **values)


def text_of(lines):
    return "".join(json.dumps(one) + "\n" for one in lines)


def write_run(folder, lines, **settings):
    folder.mkdir()
    (folder / "config.toml").write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    (folder / "metrics.jsonl").write_text(text_of(lines))
    return folder


def points_of(path):
    points = CurvePoints(path)
    while points.read_on():
        pass
    return points.since("", {})


def slowly_thinned(lines, most):
    """For each interval the number, sum, lowest and highest loss, and the x values of its last line."""
    width = 1
    while len(lines) > most * width:
        width *= 2
    found = []
    for start in range(0, len(lines), width):
        part = lines[start : start + width]
        losses = [one["loss"] for one in part if one.get("loss") is not None]
        sizes = (len(losses), sum(losses), min(losses, default=None), max(losses, default=None))
        found.append((*sizes, part[-1]["step"], part[-1]["tokens"], part[-1]["seconds"]))
    return width, found


def assert_same(one, other):
    """Fail unless two results of `parse_lines` have the same numbers."""
    assert list(one.columns) == list(other.columns) and one.splits.tolist() == other.splits.tolist()
    for ours, theirs in zip(
        [one.steps, one.tokens, one.seconds, *one.columns.values()],
        [other.steps, other.tokens, other.seconds, *other.columns.values()],
    ):
        assert np.array_equal(ours, theirs, equal_nan=True)


@pytest.mark.parametrize("num_lines", [1, 7, 8, 9, 63, 64, 65, 500])
def test_thinned_points_equal_a_slow_twin_and_keep_every_extreme(tmp_path, monkeypatch, num_lines):
    monkeypatch.setattr(curve_points, "MAX_POINTS", 8)
    draw = random.Random(num_lines)
    lines = [
        line(step, tokens=3 * step, loss=draw.choice([None, draw.uniform(1, 9)])) for step in range(1, num_lines + 1)
    ]
    lines[num_lines // 2]["loss"] = 1e6
    path = tmp_path / "metrics.jsonl"
    points, written = CurvePoints(path), 0
    while written < num_lines:  # as training writes it
        size = draw.randint(1, 70)
        with path.open("a") as file:
            file.write(text_of(lines[written : written + size]))
        written += size
        points.read_on()
    sent = points.since("", {})["splits"]["train"]
    width, twin = slowly_thinned(lines, 8)
    assert sent["width"] == width and len(sent["step"]) == len(twin) <= 8
    loss = sent["values"]["loss"]
    for at, (count, total, low, high, *xs) in enumerate(twin):
        assert [sent[x][at] for x in ("step", "tokens", "seconds")] == xs
        assert loss["mean"][at] == (pytest.approx(total / count, rel=1e-5) if count else None)
        if width > 1:
            assert loss["count"][at] == count
            assert loss["low"][at] == (pytest.approx(low, rel=1e-5) if count else None)
            assert loss["high"][at] == (pytest.approx(high, rel=1e-5) if count else None)
    assert max(value for value in loss.get("high", loss["mean"]) if value is not None) == 1e6


def test_only_new_points_are_sent_and_an_unfinished_line_waits(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text_of([train_line(1), train_line(2)]) + '{"step": 3, "spl')
    points = CurvePoints(path)
    points.read_on()
    first = points.since("", {})
    assert first["splits"]["train"]["step"] == [1, 2] and first["damaged"] == 0
    path.write_text(text_of([train_line(1), train_line(2), train_line(3), line(3, "validation", mlm_loss=2.0)]))
    points.read_on()
    more = points.since(first["version"], {"train": 2, "validation": 0})
    assert more["version"] == first["version"]
    train, validation = more["splits"]["train"], more["splits"]["validation"]
    assert (train["first"], train["step"], train["values"]["loss"]["mean"]) == (
        2,
        [3],
        [pytest.approx(8 / 3, rel=1e-5)],
    )
    assert (validation["step"], validation["tokens"], validation["values"]["mlm_loss"]["mean"]) == ([3], [300], [2.0])


def test_a_file_that_a_resumed_run_cut_back_is_read_anew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text_of(train_line(step) for step in range(1, 9)))
    points = CurvePoints(path)
    points.read_on()
    before = points.since("", {})
    path.write_text(
        text_of([*(train_line(step) for step in range(1, 5)), *(train_line(step, mfu=0.5) for step in range(5, 12))])
    )
    points.read_on()
    after = points.since(before["version"], {"train": 8})
    assert after["version"] != before["version"]
    assert after["splits"]["train"]["step"] == list(range(1, 12))
    path.unlink()
    points.read_on()
    assert points.since(after["version"], {"train": 11})["splits"]["train"]["step"] == []


def test_damaged_lines_are_left_out_and_counted(tmp_path):
    path = tmp_path / "metrics.jsonl"
    damaged = (
        b'\0\0\0\n{"step": -1, "split": "train"}\n[1]\n{"step": 1}\n{"step": 2, "split": "train", "loss": 1e999}\n'
    )
    path.write_bytes(text_of([train_line(1)]).encode() + damaged + text_of([train_line(2, mfu=True)]).encode())
    sent = points_of(path)
    assert sent["damaged"] == 5 and sent["splits"]["train"]["step"] == [1, 2]
    assert sent["splits"]["train"]["values"]["loss"]["mean"] == [8, 4]


def test_lines_of_any_length_are_read_in_parts_of_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(curve_points, "READ_BYTES", 1000)
    path = tmp_path / "metrics.jsonl"
    path.write_text(text_of([train_line(1)]) + "x" * 5000 + "\n" + text_of(train_line(step) for step in range(2, 60)))
    sent = points_of(path)
    assert sent["splits"]["train"]["step"] == list(range(1, 60)) and sent["damaged"] >= 1
    points = CurvePoints(path)
    assert points.latest()["train"]["step"] == 59  # though the file is not read yet
    assert points.latest()["train"]["loss"] == 8 / 59


def test_fast_and_slow_reading_of_lines_agree():
    lines = [train_line(1), line(1, "validation", mlm_loss=None, other="x"), train_line(2, f1=1, gradient_norm=-0.5)]
    fast = parse_lines(text_of(lines).encode())
    slow = parse_lines(text_of([*lines[:2], {"step": "x"}, lines[2]]).encode())
    assert (fast.num_damaged, slow.num_damaged) == (0, 1)
    assert_same(fast, slow)
    assert fast.columns["f1"][2] == 1 and math.isnan(fast.columns["mlm_loss"][1])


names = st.lists(
    st.text(max_size=6) | st.sampled_from(["web", "a{b}", "书", "\udce9", 'q"u/o"te']), max_size=5, unique=True
)
tables = names.flatmap(
    lambda names: st.lists(
        st.fixed_dictionaries({}, optional={name: st.none() | st.integers(-9, 9) | st.floats(-9, 9) for name in names})
    )
)


@settings(max_examples=200)
@given(losses=tables, tokens=tables, known=names, damage=st.booleans())
def test_the_numbers_of_sources_equal_a_slow_twin(losses, tokens, known, damage):
    lines = [train_line(step, loss_by_source=loss) for step, loss in enumerate(losses, 1)]
    lines += [train_line(step, tokens_by_source=number) for step, number in enumerate(tokens, 1)]
    keys = [*KEYS, *(f"loss_by_source/{name}" for name in known)]
    found = parse_lines(damage * b"damaged\n" + text_of(lines).encode(), keys)
    assert (found.steps.tolist(), found.num_damaged) == ([line["step"] for line in lines], damage)
    expected = {key: [] for key in keys}
    for line in lines:
        for table in ("loss_by_source", "tokens_by_source"):
            expected |= {f"{table}/{name}": [] for name, value in line.get(table, {}).items() if value is not None}
    for line in lines:
        for key, column in expected.items():
            table, slash, name = key.partition("/")
            value = line.get(table, {}).get(name) if slash else line.get(key)
            column.append(math.nan if value is None else float(value))
    assert list(found.columns)[: len(keys)] == keys and found.columns.keys() == expected.keys()
    assert all(np.array_equal(found.columns[key], column, equal_nan=True) for key, column in expected.items())


@pytest.mark.parametrize(
    "table", [{"web": "x"}, {"web": {"a": 1}}, {"web": 10**400}, [1], {str(number): 1 for number in range(1025)}]
)
def test_a_table_that_no_run_writes_is_a_damaged_line(table):
    lines = [train_line(1), train_line(2, loss_by_source=table), train_line(3, tokens_by_source={"web": 4})]
    found = parse_lines(text_of(lines).encode())
    assert (found.steps.tolist(), found.num_damaged) == ([1, 3], 1)
    assert found.columns["tokens_by_source/web"][1] == 4


def test_sources_have_curves_from_the_line_in_which_they_appear(tmp_path, monkeypatch):
    monkeypatch.setattr(curve_points, "MAX_POINTS", 8)
    path = tmp_path / "metrics.jsonl"
    path.write_text(text_of(train_line(step, loss_by_source={"web": step}) for step in range(1, 6)))
    points = CurvePoints(path)
    points.read_on()
    before = points.since("", {})
    more = [train_line(step, loss_by_source={"books": -step, "web": step}) for step in range(6, 12)]
    with path.open("a") as file:
        file.write(text_of([*more, line(11, "validation", loss_by_source={"books": 0.5})]))
    points.read_on()
    after = points.since(before["version"], {"train": 5})
    assert after["version"] != before["version"]
    values = after["splits"]["train"]["values"]
    assert values["loss_by_source/web"]["mean"] == [1.5, 3.5, 5.5, 7.5, 9.5, 11]
    assert values["loss_by_source/books"] == {
        "mean": [None, None, -6, -7.5, -9.5, -11],
        "count": [0, 0, 1, 2, 2, 1],
        "low": [None, None, -6, -8, -10, -11],
        "high": [None, None, -6, -7, -9, -11],
    }
    assert after["splits"]["validation"]["values"]["loss_by_source/books"]["mean"] == [0.5]
    assert points.latest()["train"]["loss_by_source/books"] == -11
    assert points.latest()["validation"]["loss_by_source/books"] == 0.5


def test_a_file_of_any_origin_gives_at_most_32_curves_of_sources(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text_of(train_line(step, loss_by_source={f"{step}": 1, f"{step}x": 2}) for step in range(1, 99)))
    names = [name for name in points_of(path)["splits"]["train"]["values"] if "/" in name]
    assert names == [f"loss_by_source/{step}{end}" for step in range(1, 17) for end in ("", "x")]


def test_next_sentence_prediction_is_not_drawn_where_it_is_not_trained(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text_of([train_line(1), train_line(2)]))
    without = points_of(path)
    assert "nsp_loss" not in without["splits"]["train"]["values"]
    path.write_text(text_of([train_line(1), train_line(2) | {"nsp_loss": 0.7}]))
    assert points_of(path)["splits"]["train"]["values"]["nsp_loss"]["mean"] == [0, 0.7]


def test_the_page_has_the_latest_values_of_all_runs_without_a_script(tmp_path):
    first = write_run(tmp_path / "first", [train_line(1), line(1, "validation", mlm_loss=6.25), train_line(1000)])
    second = write_run(tmp_path / "<b>&", [line(3, loss=0.5), line(3, "validation", accuracy=0.75)], task="classify")
    empty = write_run(tmp_path / "empty", [])
    (empty / "metrics.jsonl").unlink()
    reader = Reader(first, second, empty)
    page = reader.get("r0/curves")
    assert [row for row in page.rows if row[0] in ("step", "loss (nats)", "MLM loss", "accuracy")] == [
        ["step", "1,000", "1", "3", "3", "–", "–"],
        ["loss (nats)", "0.008", "–", "0.5", "–", "–", "–"],
        ["MLM loss", "–", "6.25", "–", "–", "–", "–"],
        ["accuracy", "–", "–", "–", "0.75", "–", "–"],
    ]
    assert "&lt;b&gt;&amp;" in page.source and "<b>" not in page.source
    assert 'data-steps="/token/r0/steps"' in page.source and 'data-steps="/token/r1/steps"' not in page.source
    assert reader.get("r0/curves/latest").rows == page.rows
    assert "损失（nat）" in reader.get("r1/curves", language="zh").text


def test_points_come_as_json_and_wrong_values_are_refused(tmp_path):
    reader = Reader(write_run(tmp_path / "run", [train_line(step) for step in range(1, 4)]))
    answer = reader.client.get("/token/r0/curves/points").json()
    assert answer["more"] is False and answer["splits"]["train"]["step"] == [1, 2, 3]
    again = reader.client.get(f"/token/r0/curves/points?version={answer['version']}&train=2&validation=0").json()
    assert again["splits"]["train"]["step"] == [3]
    assert "train=x: expected a whole number" in reader.get("r0/curves/points?train=x", 400).text
    assert "version: expected" in reader.get("r0/curves/points?version=<", 400).text
    reader.get("r9/curves/points", 404)


def test_each_quantity_has_a_chinese_title():
    assert {title for _, title in PANELS + SOURCE_PANELS} <= chinese_texts().keys()


def test_the_table_has_a_row_for_each_source(tmp_path):
    mixture = {"loss_by_source": {"<web>": 2.5, "books": 3.0}, "tokens_by_source": {"<web>": 123456, "books": 10}}
    first = write_run(
        tmp_path / "first", [train_line(1, **mixture), line(1, "validation", loss_by_source={"books": 4.5})]
    )
    second = write_run(tmp_path / "second", [train_line(1, loss_by_source={"n" * 500: 1.5}), train_line(2)])
    page = Reader(first, second).get("r0/curves")
    assert [row for row in page.rows if "by source" in row[0]] == [
        ["MLM loss by source · <web>", "2.5", "–", "–", "–"],
        ["MLM loss by source · books", "3", "4.5", "–", "–"],
        [f"MLM loss by source · {'n' * 60}…", "–", "–", "1.5", "–"],
        ["tokens read by source · <web>", "123,456", "–", "–", "–"],
        ["tokens read by source · books", "10", "–", "–", "–"],
    ]
    assert "各来源的 MLM 损失 · books" in Reader(first).get("r0/curves", language="zh").text
    assert page.source.count("data-sources") == 2


def test_the_overview_has_the_sources_of_a_mixture(tmp_path):
    mixture = {"loss_by_source": {"books": 3.0}, "tokens_by_source": {"web": 300000, "books": 100000}}
    before = {"loss_by_source": {"web": 2.5, "books": 9.0}, "tokens_by_source": {"web": 200000, "books": 90000}}
    lines = [train_line(1, **before), train_line(2, **mixture), line(2, "validation", loss_by_source={"web": 2.25})]
    page = Reader(write_run(tmp_path / "run", lines)).get("r0/overview")
    assert ["web", "300,000", "75.0 %", "2.5", "2.25"] in page.rows
    assert ["books", "100,000", "25.0 %", "3", "–"] in page.rows
    assert "Sources" not in Reader(write_run(tmp_path / "one", [train_line(1)])).get("r0/overview").text
