import json
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from jobs.plot import PlotConfig, curve, drop_untrained_nsp, main, plot, read_run, running_mean, tokens_of


def write_run(folder: Path, num_steps: int, with_pairs: bool = True) -> Path:
    folder.mkdir()
    lines = [{"step": 0, "split": "validation", "mlm_loss": 4.0, "mlm_accuracy": 0.0, "seconds": 0.1}]
    for step in range(1, num_steps + 1):
        lines.append(
            {
                "step": step,
                "split": "train",
                "loss": 4.0 / step,
                "mlm_loss": 3.0 / step,
                "mlm_accuracy": 0.1,
                "learning_rate": 1e-3,
                "tokens": 100 * step,
                "seconds": step / 2,
                "tokens_per_second": 200.0,
            }
            | ({"nsp_loss": None if step == 2 else 0.7} if with_pairs else {})
        )
    lines.append(lines[0] | {"step": num_steps})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.mark.parametrize("name, begins", [("a.png", b"\x89PNG"), ("b.svg", b"<?xml"), ("c.pdf", b"%PDF")])
def test_the_curves_of_two_runs_are_drawn_in_the_form_that_is_asked_for(tmp_path, capsys, name, begins):
    first, second = write_run(tmp_path / "first", 30), write_run(tmp_path / "second", 2, with_pairs=False)
    main([str(first), str(second), "--out", str(tmp_path / name), "--x", "tokens"])
    assert capsys.readouterr().out == f"{tmp_path / name}: 2 runs\n"
    content = (tmp_path / name).read_bytes()
    assert content.startswith(begins) and len(content) > 5000
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, "first", "second"])


def test_a_curve_has_the_points_of_its_split_that_have_a_number(tmp_path):
    run = write_run(tmp_path / "run", 3)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert curve(read_run(run), "nsp_loss", "step") == ([1, 3], [0.7, 0.7])
    assert curve(read_run(run), "mlm_loss", "step", "validation") == ([0, 3], [4.0, 4.0])
    assert tokens_of(lines) == [0, 100, 200, 300, 300]


def test_a_run_drop_untrained_nsp_has_no_curve_of_them():
    """What a run on single segments writes is 0, as if it were right about each pair."""
    line = {"step": 1, "split": "train", "mlm_loss": 4.0, "nsp_loss": 0.0, "nsp_accuracy": 0.0}
    assert drop_untrained_nsp([line, line]) == [{"step": 1, "split": "train", "mlm_loss": 4.0}] * 2
    pairs = [line, line | {"nsp_loss": 0.7}]
    assert drop_untrained_nsp(pairs) == pairs


def test_a_running_mean_equals_its_twin():
    values = [float(i * i % 7) for i in range(20)]
    slow = [sum(values[max(0, i - 4) : i + 1]) / len(values[max(0, i - 4) : i + 1]) for i in range(20)]
    assert running_mean(values, 5) == pytest.approx(slow)


def test_a_spike_is_in_the_mean_of_its_window_and_no_longer():
    means = running_mean([5.0] * 10 + [1e20] + [5.0] * 30, 5)
    assert means[9] == 5 and means[10] == means[14] == pytest.approx(2e19) and means[15:] == [5.0] * 26


def test_what_cannot_be_drawn_is_said(tmp_path):
    for runs, out, message in (
        ((tmp_path,), "a.png", f"{tmp_path} has no metrics.jsonl with a line in it"),
        ((), "a.png", "give at least one run folder"),
        ((tmp_path,), "a.gif", "--out a.gif: expected a name ending in .png, .svg or .pdf"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            main([*map(str, runs), "--out", out])
    with pytest.raises(ValueError, match="smooth=0 must be at least 1"):
        PlotConfig(runs=(tmp_path,), smooth=0)


def write_mixture(folder: Path, names: list[str], num_steps: int = 40) -> Path:
    folder.mkdir()
    lines = []
    for step in range(1, num_steps + 1):
        tokens = {name: 100 * step * (number + 1) for number, name in enumerate(names)}
        # The second source has no masked tokens in every other step.
        losses = {name: 4.0 / step + number for number, name in enumerate(names) if number != 1 or step % 2}
        values = {"loss": 4.0 / step, "tokens": sum(tokens.values()), "seconds": step / 2}
        lines.append(values | {"step": step, "split": "train", "loss_by_source": losses, "tokens_by_source": tokens})
    lines.append({"step": num_steps, "split": "validation", "mlm_loss": 1.0, "loss_by_source": {names[0]: 1.5}})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def drawn(monkeypatch, *runs: Path, out: Path) -> dict[str, Any]:
    """The charts of a plot by their titles."""
    figures = []
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: figures.append(figure) or savefig(figure, *a, **k))
    plot(PlotConfig(runs=runs, out=out, overwrite=True))
    return {axes.get_title(): axes for axes in figures[0].axes}


def legend_of(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_a_mixture_has_a_curve_for_each_source_of_each_run_with_a_legend(tmp_path, monkeypatch):
    one, two = write_mixture(tmp_path / "one", ["web", "books"]), write_mixture(tmp_path / "two", ["web", "notes"])
    axes = drawn(monkeypatch, one, out=tmp_path / "plot.png")
    assert list(axes) == ["loss (nats)", "MLM loss", "MLM loss by source", "tokens read by source"]
    assert legend_of(axes["MLM loss by source"]) == legend_of(axes["tokens read by source"]) == ["web", "books"]
    tokens = [line for line in axes["tokens read by source"].get_lines() if line.get_linestyle() == "-"]
    assert [list(line.get_ydata())[:2] for line in tokens] == [[100, 200], [200, 400]]
    dots = [
        line for line in axes["MLM loss by source"].get_lines() if line.get_marker() == "o" and len(line.get_xdata())
    ]
    assert [list(line.get_ydata()) for line in dots] == [[1.5]]
    axes = drawn(monkeypatch, one, two, out=tmp_path / "plot.png")
    losses = axes["MLM loss by source"]
    assert legend_of(losses) == ["web", "books", "notes", str(one), str(two)]
    means = {(line.get_color(), line.get_linestyle()) for line in losses.get_lines() if line.get_linewidth() > 1}
    assert {("C0", "-"), ("C1", "-"), ("C0", "--"), ("C2", "--")} <= means


def test_names_of_sources_and_runs_are_drawn_as_they_are(tmp_path, monkeypatch):
    names = ["_hidden", "$a^{$", "\udce9", "a\nb", *map(str, range(40))]
    run = write_mixture(tmp_path / "$_^", names, num_steps=3)
    axes = drawn(monkeypatch, run, write_run(tmp_path / "_", 3), out=tmp_path / "plot.png")
    assert legend_of(axes["MLM loss by source"])[:5] == ["_hidden", "$a^{$", "\ufffd", "a\ufffdb", "0"]
    assert len(legend_of(axes["MLM loss by source"])) == 32 + 2  # sources and runs
    assert legend_of(axes["loss (nats)"]) == [str(run), str(tmp_path / "_")]
