"""The shell function of docs/command-line.md completes commands and flags."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cli import COMMANDS

ROOT = Path(__file__).parents[2]
FUNCTION = re.compile(r"<!-- runs as a test -->\s*```bash\n(.*?)```", re.S)


def completions(*words: str) -> list[str]:
    """What bash offers for the last of these words."""
    (function,) = FUNCTION.findall((ROOT / "docs/command-line.md").read_text("utf-8"))
    code = (
        f'bertloom() {{ {shlex.quote(sys.executable)} -m jobs.cli "$@"; }}\n{function}\n'
        f"COMP_WORDS=({shlex.join(['bertloom', *words])}); COMP_CWORD={len(words)}\n"
        '_bertloom; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    ran = subprocess.run(["bash", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stderr == ""
    return sorted(ran.stdout.split())


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([""], sorted([*COMMANDS, "help"])),
        (["pre"], ["predict", "preprocess", "pretrain", "preview"]),
        (["help", "ex"], ["explain", "export", "export-data"]),
        (["pretrain", "tiny", "--num-s"], ["--num-steps"]),
        (["pretrain", "--no-rem"], ["--no-remask"]),
        (["pretrain", "--model.hidden-s"], ["--model.hidden-size"]),
        (["preprocess", "--he"], ["--header", "--help"]),
        (["preprocess", "--input", "corp"], []),  # bash offers file names
        (["no-such-command", "--"], []),
    ],
    ids=str,
)
def test_the_function_in_the_docs_completes_commands_and_flags(words, found):
    assert completions(*words) == found


def test_all_flags_of_a_command_are_offered_and_nothing_else():
    assert completions("demo", "--") == ["--help", "--num-steps", "--num-workers", "--out"]
