import dataclasses
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import tyro
from hypothesis import given
from hypothesis import strategies as st

from jobs.support.config import dump, parse, preset_names


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    learning_rate: float = 1e-4
    """Peak learning rate."""
    schedule: Literal["linear", "constant"] = "linear"
    """What follows the warm-up."""

    def __post_init__(self):
        if self.learning_rate <= 0:
            raise ValueError(
                f"learning_rate={self.learning_rate} was given, and training would walk away from the minimum: "
                f"choose a positive number"
            )


@dataclass(frozen=True, kw_only=True)
class Training:
    """Trains."""

    data: str
    """The data set, a folder."""
    num_steps: int | None = None
    """Optimizer updates."""
    max_seq_length: tuple[int, ...] = (128,)
    """Longest examples, in tokens."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of Adam."""
    compile: bool = False
    """Compile the model."""
    cache: Path = Path("cache")
    """Where remote shards are kept."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    """How weights are updated."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    path: tyro.conf.Positional[str]
    """A data set."""


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """How long examples are."""

    max_seq_length: tuple[int, ...] = (128,)
    """Tokens of an example."""

    def __post_init__(self):
        if not self.max_seq_length:
            raise ValueError("max_seq_length is empty: expected one or more lengths")


@dataclass(frozen=True, kw_only=True)
class Examples:
    """How examples are made."""

    lengths: Lengths = field(default_factory=Lengths)
    seed: int
    """Seed."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Makes examples."""

    out: str
    """The data set to write."""
    examples: tyro.conf.OmitArgPrefixes[Examples]
    optimizer: Optimizer = field(default_factory=Optimizer)


def parse_with(tmp_path, toml, *flags):
    path = tmp_path / "preset.toml"
    path.write_text(toml, encoding="utf-8")
    return parse(Training, [str(path), *flags], prog="bertloom train")


def test_flags_alone_fill_a_configuration():
    config = parse(Training, ["--data", "d", "--max-seq-length", "128", "512", "--optimizer.learning-rate", "3"], "x")
    assert config == Training(data="d", max_seq_length=(128, 512), optimizer=Optimizer(learning_rate=3.0))


def test_flags_win_over_a_preset_and_a_preset_over_the_defaults(tmp_path):
    toml = 'data = "p"\nnum_steps = 5\n[optimizer]\nlearning_rate = 1\nschedule = "constant"\n'
    config = parse_with(tmp_path, toml, "--num-steps", "7")
    assert config == Training(data="p", num_steps=7, optimizer=Optimizer(learning_rate=1.0, schedule="constant"))


def test_a_later_preset_wins_key_by_key(tmp_path):
    first, second = tmp_path / "a.toml", tmp_path / "b.toml"
    first.write_text('data = "a"\ncompile = true\n[optimizer]\nlearning_rate = 2.0\nschedule = "constant"\n')
    second.write_text('data = "b"\nmax_seq_length = [8, 16]\ncache = "c"\n[optimizer]\nlearning_rate = 3.0\n')
    config = parse(Training, [str(first), str(second)], "x")
    assert config == Training(
        data="b",
        max_seq_length=(8, 16),
        compile=True,
        cache=Path("c"),
        optimizer=Optimizer(learning_rate=3.0, schedule="constant"),
    )


def test_a_flag_corrects_a_value_of_a_preset_that_post_init_would_refuse(tmp_path):
    config = parse_with(tmp_path, 'data = "d"\n[optimizer]\nlearning_rate = -1.0\n', "--optimizer.learning-rate", "1")
    assert config.optimizer.learning_rate == 1.0


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("num_stps = 5", r"preset.toml: unknown key 'num_stps': did you mean 'num_steps'\?"),
        ("[optimizer]\nzzz = 5", r"unknown key 'optimizer.zzz': the keys here are learning_rate, schedule"),
        ('num_steps = "many"', r"preset.toml: num_steps = 'many': expected an integer or \"None\""),
        ("num_steps = true", r"preset.toml: num_steps = True: expected an integer"),
        ("data = 5", r"preset.toml: data = 5: expected a string"),
        ("compile = 1", r"preset.toml: compile = 1: expected true or false"),
        ("max_seq_length = 128", r"preset.toml: max_seq_length = 128: expected a list, each item an integer"),
        ("max_seq_length = [128, 1.5]", r"preset.toml: max_seq_length\[1\] = 1.5: expected an integer"),
        ("betas = [0.9]", r"preset.toml: betas = \[0.9\]: expected a list of 2 values"),
        ("optimizer = 3", r"preset.toml: optimizer = 3: expected a table, \[optimizer\]"),
        ('[optimizer]\nschedule = "cosine"', r"optimizer.schedule = 'cosine': expected one of 'linear', 'constant'"),
        ("num_steps = ", r"preset.toml: not valid TOML"),
        (f"num_steps = {'[' * 100_000}", r"preset.toml: not valid TOML: it is nested in more than 100 levels"),
        ("[optimizer]\nlearning_rate = inf", r"preset.toml: optimizer.learning_rate = inf: expected a finite number"),
        ("[optimizer]\nlearning_rate = nan", r"preset.toml: optimizer.learning_rate = nan: expected a finite number"),
        ("betas = [0.9, -inf]", r"preset.toml: betas\[1\] = -inf: expected a finite number"),
        (
            "num_steps = 9223372036854775808",
            r"preset.toml: num_steps = a number of more than 18 digits: expected a fin",
        ),
        (f"num_steps = 0x{'f' * 9999}", r"preset.toml: num_steps = a number of more than 18 digits: expected a finite"),
        (f"data = ['{'x' * 9999}']", r"preset.toml: data = \['x{198}…: expected a string"),
    ],
)
def test_a_wrong_preset_is_refused_with_file_key_and_expectation(tmp_path, toml, says):
    with pytest.raises(ValueError, match=says):
        parse_with(tmp_path, toml, "--data", "d")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--optimizer.learning-rate", "inf"], "^learning_rate=inf: expected a finite number"),
        (["--optimizer.learning-rate", "nan"], "^learning_rate=nan: expected a finite number"),
        (["--optimizer.learning-rate", "1e300"], r"^learning_rate=1e\+300: expected a finite number below 2\^63"),
        (["--betas", "0.9", "-inf"], "^betas=-inf: expected a finite number"),
        (["--num-steps", "9" * 19], "^num_steps=a number of more than 18 digits: expected a finite number"),
        (["--max-seq-length", "8", "9" * 30], "^max_seq_length=a number of more than 18 digits: expected a finite"),
    ],
)
def test_a_number_that_is_not_finite_or_too_large_is_refused_in_a_flag_too(flags, says):
    with pytest.raises(ValueError, match=says):
        parse(Training, ["--data", "d", *flags], "x")


def test_a_word_that_is_not_a_preset_is_refused():
    with pytest.raises(ValueError, match="'tinny' is not a preset: expected one of"):
        parse(Training, ["tinny", "--data", "d"], "x")
    with pytest.raises(ValueError, match="nowhere.toml: this preset file does not exist"):
        parse(Training, ["nowhere.toml", "--data", "d"], "x")


def test_a_positional_value_is_never_read_as_a_preset():
    assert parse(Inspection, ["tiny"], "x").path == "tiny"


def test_errors_of_post_init_keep_their_text_and_the_class_is_restored():
    before = Optimizer.__post_init__
    with pytest.raises(ValueError, match="^learning_rate=-1.0 was given, .* choose a positive number$"):
        parse(Training, ["--data", "d", "--optimizer.learning-rate", "-1"], "x")
    assert Optimizer.__post_init__ is before


def test_a_missing_required_field_ends_with_status_2(capsys):
    with pytest.raises(SystemExit) as exit:
        parse(Training, [], "bertloom train")
    assert exit.value.code == 2
    assert "--data" in capsys.readouterr().err


def test_an_unknown_flag_is_refused_with_a_suggestion():
    with pytest.raises(ValueError, match="unknown flag --num-stps: did you mean --num-steps?"):
        parse(Training, ["--data", "d", "--num-stps", "3"], "bertloom train")


def test_the_help_shows_the_docstrings_of_the_fields(capsys):
    with pytest.raises(SystemExit) as exit:
        parse(Training, ["--help"], "bertloom train")
    assert exit.value.code == 0
    out = capsys.readouterr().out
    assert "bertloom train" in out and "Longest examples, in tokens." in out and "--optimizer.learning-rate" in out


configurations = st.builds(
    Training,
    data=st.text(),
    num_steps=st.none() | st.integers(min_value=1 - 2**63, max_value=2**63 - 1),
    max_seq_length=st.lists(st.integers(0, 512)).map(tuple),
    betas=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    compile=st.booleans(),
    optimizer=st.builds(Optimizer, learning_rate=st.floats(1e-300, 2.0**62), schedule=st.sampled_from(["linear"])),
)


def test_flat_configurations_appear_at_the_level_of_their_parent(tmp_path):
    preset = tmp_path / "a.toml"
    preset.write_text("seed = 1\nmax_seq_length = [64]\n[optimizer]\nlearning_rate = 2.0\n")
    config = parse(Job, [str(preset), "--out", "d", "--max-seq-length", "128", "512"], "x")
    lengths = Lengths(max_seq_length=(128, 512))
    assert config == Job(out="d", examples=Examples(seed=1, lengths=lengths), optimizer=Optimizer(learning_rate=2.0))
    again = tmp_path / "again.toml"
    again.write_text(dump(config))
    assert tomllib.loads(dump(config)) == {
        "out": "d",
        "max_seq_length": [128, 512],
        "seed": 1,
        "optimizer": {"learning_rate": 2.0, "schedule": "linear"},
    }
    assert parse(Job, [str(again)], "x") == config


def test_errors_about_flat_configurations_name_the_flat_key(tmp_path, capsys):
    preset = tmp_path / "a.toml"
    for toml, says in [
        ("sed = 1", "unknown key 'sed': did you mean 'seed'?"),
        ("seed = true", "seed = True: expected an integer"),
        ("examples = 1", "unknown key 'examples': the keys here are out, max_seq_length, seed, optimizer"),
    ]:
        preset.write_text(toml)
        with pytest.raises(ValueError, match=re.escape(f"{preset}: {says}")):
            parse(Job, [str(preset), "--out", "d"], "x")
    with pytest.raises(ValueError, match="^max_seq_length is empty: expected one or more lengths$"):
        parse(Job, ["--out", "d", "--seed", "1", "--max-seq-length"], "x")
    with pytest.raises(SystemExit):
        parse(Job, ["--out", "d"], "x")
    assert "--seed" in capsys.readouterr().err


def test_a_name_that_occurs_twice_among_flat_fields_is_an_assertion_error():
    @dataclass(frozen=True, kw_only=True)
    class Twice:
        examples: tyro.conf.OmitArgPrefixes[Examples]
        seed: int = 0

    with pytest.raises(AssertionError, match="Twice has two fields with the name seed"):
        parse(Twice, [], "x")


@given(configurations)
def test_a_dumped_configuration_can_be_parsed_as_a_preset(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("preset") / "config.toml"
    path.write_bytes(dump(config).encode("utf-8"))
    assert parse(Training, [str(path)], "x") == config


def test_every_shipped_preset_is_a_table_with_values():
    for name in preset_names():
        preset = Path(__file__).parent.parent.parent / "jobs" / "presets" / f"{name}.toml"
        assert tomllib.loads(preset.read_text(encoding="utf-8"))


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse(Training, ["--data", "d"], "x").data = "e"
