"""Every command in the READMEs and in docs/ runs on small stand-ins, in the order of its page, or is listed with a reason.

A command that is neither runnable with the files of its page's setting (tests/doc_settings.py) nor listed there fails.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from jobs.cli import main
from tests.doc_pages import Command, Python, commands, lines_of_blocks, pages, python
from tests.doc_settings import NOT_RUN, PYTHON_NOT_RUN, SETTINGS, Setting
from tests.doc_stand_ins import SHAPE, StandIns, shown_file
from tests.test_readmes import CONFIGS, flags_of

ROOT = Path(__file__).parent.parent
PAGES = [page for page in pages() if page != "README.zh-CN.md"]
SLOW = {"docs/domain.md", "docs/finetuning.md", "docs/mixtures.md", "docs/results.md"}
"""Pages that take the longest."""
PRESETS = {"tiny", "mini", "small", "base", "large"}
LABEL = re.compile(r"\s*([A-Za-z\[][\w@./\[\] -]*?)(?=\s{2,}|:|\s+\d|\s+[0-9a-f]{16}| = )")


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory) -> StandIns:
    return StandIns(tmp_path_factory.mktemp("stand-ins"))


def reason_not_to_run(command: Command) -> str | None:
    text = "\n".join([command.text, *command.shown])
    return next((reason for pattern, reason in NOT_RUN.items() if re.search(pattern, text)), None)


def runnable(page: str, ranks: bool = False) -> list[Command]:
    """The commands of a page that run here, of one process or of several ranks."""
    found = [command for command in commands(page) if not reason_not_to_run(command)]
    return [command for command in found if command.text.startswith("torchrun") == ranks]


def set_option(words: list[str], name: str, *values: str) -> None:
    """Give an option this value, in the place of the values that it has."""
    if name in words:
        first = words.index(name)
        end = next((n for n in range(first + 1, len(words)) if words[n].startswith("--")), len(words))
        words[first:end] = [name, *values]
    else:
        words += [name, *values]


def smaller(words: list[str]) -> list[str]:
    """The words of a command, for stand-ins: few steps, a small model, few words."""
    words = list(words)
    if words[0] == "preprocess":
        set_option(words, "--num-workers", "1")
        if "--dupe-factor" in words:
            set_option(words, "--dupe-factor", "2")
    elif words[0] == "pretrain":
        _smaller_training(words)
    elif words[0] == "finetune":
        set_option(words, "--num-epochs", "1")
    elif words[0] == "build-vocab":
        set_option(words, "--vocab-size", "2500")
    elif words[0] == "adapt-vocab":
        set_option(words, "--num-words", "20")
    elif words[0] == "compare":
        set_option(words, "--max-bytes", "3000")
    return words


def _smaller_training(words: list[str]) -> None:
    if "--budget" in words:
        at = words.index("--budget")
        words[at : at + 2] = ["--num-steps", "8"]
    if words[1] == "run/config.toml":  # the rest of a training, with its settings
        return
    steps = int(words[words.index("--num-steps") + 1]) if "--num-steps" in words else 8
    set_option(words, "--num-steps", str(min(steps, 8)))
    phases = words[words.index("--phases") + 1] if "--phases" in words else ".toml"
    if phases.endswith(".toml"):  # other phases have batch sizes
        set_option(words, "--batch-size", "8")
    if words[1] in PRESETS:
        for name, value in SHAPE.items():
            set_option(words, f"--model.{name}", str(value))


def swapped(text: str, setting: Setting) -> str:
    for old, new in setting.swaps.items():
        text = text.replace(old, new)
    return text


def prepare(page: str, files: dict[str, str], folder: Path, stand_ins: StandIns) -> None:
    """Write files that the page names and does not make."""
    for name, kind in files.items():
        if kind.startswith("shown "):
            text = swapped(shown_file(page, kind), SETTINGS[page])
            (folder / name).write_text(re.sub(r"num_epochs = \d+", "num_epochs = 1", text), "utf-8")
        else:
            stand_ins.put(kind, folder / name)


def run_in_shell(text: str, folder: Path) -> tuple[int, str]:
    """Run a line with pipes, with `bertloom` on the path."""
    program = folder / ".programs/bertloom"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m jobs.cli "$@"\n', "utf-8")
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(["bash", "-c", text], cwd=folder, env=environment, capture_output=True, text=True)
    return ran.returncode, ran.stdout + ran.stderr


def open_pages(words: list[str], folder: Path) -> tuple[int, str]:
    """Start `browse`, read the address, end it. Not with Ctrl-C, which a background job of a shell ignores."""
    command = [sys.executable, "-m", "jobs.cli", *words, *([] if "--no-open" in words else ["--no-open"])]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        first = process.stdout.readline()
        process.terminate()
        assert re.match(r"http://127\.0\.0\.1:\d+/[\w-]+/$", first)
        process.communicate(timeout=60)
    return 0, first


def run_ranks(command: Command, folder: Path) -> tuple[int, str]:
    """Run what `torchrun` starts, in two processes on this machine."""
    words = command.words
    at = words.index("bertloom")
    launcher, words = words[:at], smaller(words[at + 1 :])
    set_option(launcher, "--nproc-per-node", "2")
    text = shlex.join([*launcher, "--standalone", "bertloom", *words])
    return run_in_shell(text, folder)


def run(command: Command, setting: Setting, folder: Path, capfd) -> tuple[int, str]:
    """Return the exit status of a command and what it prints."""
    text = swapped(command.text, setting)
    if not command.is_plain:
        return run_in_shell(text, folder)
    words = smaller(Command(command.page, command.line, text).words[1:])
    if words[0] == "browse":
        return open_pages(words, folder)
    out = words[words.index("--out") + 1] if "--out" in words else ""
    if out.isupper():  # a placeholder: each command of the page has one of its own
        shutil.rmtree(folder / out, ignore_errors=True)
    status = main(words)
    printed = capfd.readouterr()
    return status, printed.out + printed.err


def labels(lines) -> set[str]:
    """What the lines of an output begin with: `documents`, `by script`."""
    found = (LABEL.match(line) for line in lines)
    return {match[1].strip() for match in found if match}


def run_python(block: Python, folder: Path) -> None:
    code = "\n".join(line.removeprefix(">>> ") for line in block.code.splitlines() if _is_code(block, line))
    status, printed = run_in_shell(f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}", folder)
    assert status == 0, f"{block}\n{printed}"


def _is_code(block: Python, line: str) -> bool:
    """Whether a line is code; in a session, only lines with a prompt are."""
    return line.startswith(">>> ") or ">>> " not in block.code


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] * (page in SLOW)) for page in PAGES if runnable(page)],
)
def test_every_command_of_a_page_runs_as_shown(page, stand_ins, tmp_path, monkeypatch, capfd):
    setting = SETTINGS.get(page, Setting())
    prepare(page, setting.files, tmp_path, stand_ins)
    monkeypatch.chdir(tmp_path)
    for command in runnable(page):
        for words, files in setting.later.items():
            if words in command.text:
                prepare(page, files, tmp_path, stand_ins)
        capfd.readouterr()
        status, printed = run(command, setting, tmp_path, capfd)
        expected = 2 if any(": error:" in line for line in command.shown) else 0
        assert status == expected, f"{command}\n{printed}"
        missing = (
            labels(swapped(line, setting) for line in command.shown) - labels(printed.splitlines()) - setting.differs
        )
        assert not missing, f"{command}\nshows lines that the command does not print: {missing}\n{printed}"
    for block in python(page) if page not in PYTHON_NOT_RUN else []:
        run_python(block, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for page in PAGES for c in runnable(page, ranks=True)], ids=str)
def test_a_command_of_torchrun_runs_in_two_processes(command, stand_ins, tmp_path):
    prepare(command.page, {"DATASET": SETTINGS[command.page].files["DATASET"]}, tmp_path, stand_ins)
    status, printed = run_ranks(command, tmp_path)
    assert status == 0, f"{command}\n{printed}"


def test_the_chinese_readme_has_the_commands_of_the_english_one():
    english, chinese = ([command.text.split("#")[0].strip() for command in commands(page)] for page in pages()[:2])
    assert english == chinese


def test_every_command_is_found():
    """A block of commands that the parser does not see would not run."""
    for page in pages():
        shown = [line for line in lines_of_blocks(page) if re.match(r"(\$ )?(bertloom [a-z-]+|torchrun)( |$)", line)]
        found = Counter(command.text.split("#")[0].strip() for command in commands(page))
        for line in sorted(shown, key=len, reverse=True):  # a short one may also be the beginning of a long one
            begin = line.removeprefix("$ ").split("#")[0].rstrip(" \\|")
            command = min((text for text in found if text.startswith(begin) and found[text]), key=len, default="")
            assert command, f"{page}: {line}"
            found[command] -= 1


def test_every_listed_reason_is_that_of_a_command():
    everything = ["\n".join([command.text, *command.shown]) for page in pages() for command in commands(page)]
    for pattern in NOT_RUN:
        assert any(re.search(pattern, text) for text in everything), pattern


def test_the_commands_that_do_not_run_have_flags_that_exist():
    listed = [command for page in PAGES for command in commands(page) if reason_not_to_run(command)]
    for command in listed:
        found = re.search(r"\bbertloom ([a-z-]+)( .*|$)", command.text)
        if found and found[1] in CONFIGS and "docker" not in command.text:
            words = found[2].split(" -- ")[0].split("#")[0].split()
            flags = {word.split("=")[0] for word in words if word.startswith("--")}
            assert flags <= flags_of(CONFIGS[found[1]]), command
