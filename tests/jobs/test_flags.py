"""Help pages, and flags that somebody mistypes or knows from another program."""

import re
import subprocess
import sys

import pytest

from jobs.cli import COMMANDS, main
from jobs.support.flags import check_flags

FLAGS = ["--num-epochs", "--batch-size", "--micro-batch-size", "--learning-rate", "--gates.no-fail", "--num-steps"]


@pytest.mark.parametrize(
    ("typed", "advice"),
    [
        ("--lr", "--lr: did you mean --learning-rate?"),
        ("--epochs", "--epochs: did you mean --num-epochs?"),
        ("--batch=3", "--batch: did you mean --batch-size or --micro-batch-size?"),
        ("--batch_sise", "--batch_sise: did you mean --batch-size?"),
        ("--gates.no-fali", "--gates.no-fali: did you mean --gates.no-fail?"),
        ("--colour", "--colour: bertloom x --help lists the flags"),
    ],
)
def test_an_unknown_flag_gets_a_suggestion(typed, advice):
    with pytest.raises(ValueError) as caught:
        check_flags(["--num-steps", "3", typed, "1"], FLAGS, "bertloom x")
    assert str(caught.value) == f"unknown flag {advice}"


def test_values_known_flags_and_help_are_accepted_with_underscores_too():
    check_flags(["-h", "--help", "--num_steps=-1", "--batch-size", "-- x", "--tyro-print-completion"], FLAGS, "x")


@pytest.mark.parametrize("flag", [["--runner=DaskRunner"], ["--runner", "FlinkRunner"]])
def test_a_flag_of_beam_before_the_dashes_is_told_where_it_goes(flag, capsys):
    assert main(["preprocess", "--input", "x", "--vocab", "v", "--out", "o", *flag]) == 2
    assert "--runner: flags of Beam and of an engine follow a --, as in -- --runner=" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_refuses_an_unknown_flag_in_one_line_and_shows_its_help(command, capsys):
    assert main([command, "--no-such-flag", "1"]) == 2
    assert capsys.readouterr().err.startswith(f"bertloom {command}: error: unknown flag --no-such-flag: ")
    for words in [command, "--help"], ["help", command]:
        with pytest.raises(SystemExit) as ended:
            main(words)
        page = capsys.readouterr().out
        assert ended.value.code == 0 and page.startswith(f"usage: bertloom {command} ")
        assert not re.search(r"\w\.\w+ options", page)


@pytest.mark.parametrize("command", COMMANDS)
def test_required_flags_come_first_on_the_help_page(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    page = capsys.readouterr().out
    assert "(required)" not in page.partition("(default: ")[2]


def test_the_usage_shows_that_presets_come_first(capsys):
    with pytest.raises(SystemExit):
        main(["pretrain", "--help"])
    assert capsys.readouterr().out.startswith("usage: bertloom pretrain [PRESET ...] [-h]")
    with pytest.raises(SystemExit):
        main(["verify", "--help"])
    assert "PRESET" not in capsys.readouterr().out


def test_a_preset_that_does_not_exist_lists_those_that_do(capsys):
    assert main(["pretrain", "tiny.toml", "--data", "d", "--out", "o"]) == 2
    assert "tiny.toml: this preset file does not exist; did you mean tiny?" in capsys.readouterr().err
    assert main(["pretrain", "mine.toml", "--data", "d", "--out", "o"]) == 2
    presets = "base, large, mini, modern-base, modern-mini, modern-small, modern-tiny, small, tiny"
    assert f"presets are {presets}" in capsys.readouterr().err


def test_the_help_of_a_terminal_has_whole_color_codes_in_its_titles():
    code = (
        "import io, sys; from jobs.support.flags import plain_help; out = sys.stdout\n"
        "with plain_help(False): print('╭─ \\x1b[37;2ma.b.clean\\x1b[0m \\x1b[2moptions\\x1b[0m ───╮')"
    )
    ran = subprocess.run([sys.executable, "-X", "utf8", "-c", code], capture_output=True, text=True, encoding="utf-8")
    assert ran.stdout == "╭─ \x1b[37;2mclean\x1b[0m \x1b[2moptions\x1b[0m ───────╮\n"
