import os
import subprocess
import sys
import tempfile
import types

import pytest

from jobs import cli
from jobs.support.errors import one_line
from pipeline.local import worker as local_worker


@pytest.fixture
def command(monkeypatch):
    """Return a function that makes `bertloom build-vocab` call a given function."""

    def install(function):
        module = types.ModuleType("jobs.stand_in")
        module.main = function
        monkeypatch.setitem(sys.modules, "jobs.stand_in", module)
        monkeypatch.setattr(cli, "available_commands", lambda: {"build-vocab": ("jobs.stand_in", "A stand-in")})

    return install


def test_no_arguments_and_help_list_the_commands(capsys):
    for argv in [], ["--help"]:
        assert cli.main(argv) == 0
        out = capsys.readouterr().out
        assert "usage: bertloom COMMAND" in out and "build-vocab" in out


def test_only_commands_whose_module_exists_are_listed(monkeypatch, capsys):
    monkeypatch.setitem(cli.COMMANDS, "fly", ("jobs.fly", "Fly"))
    cli.main([])
    assert "Fly" not in capsys.readouterr().out
    assert cli.main(["fly"]) == 2


def test_version_is_one_line(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("bertloom ")


def test_an_unknown_command_gets_a_suggestion(capsys):
    assert cli.main(["build-vocap"]) == 2
    assert "unknown command 'build-vocap': did you mean 'build-vocab'?" in capsys.readouterr().err


def test_a_command_gets_the_remaining_arguments_and_its_status_is_returned(command):
    seen = []
    command(lambda argv: seen.append(argv))
    assert cli.main(["build-vocab", "--x", "1"]) == 0
    assert seen == [["--x", "1"]]
    command(lambda argv: 1)
    assert cli.main(["build-vocab"]) == 1


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ValueError("num_steps=0: choose 1 or more"), "bertloom build-vocab: error: num_steps=0: choose 1 or more\n"),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), "error: a.txt: No such file or directory\n"),
        (PermissionError(13, "Permission denied", b"a.txt"), "error: a.txt: Permission denied\n"),
        (OSError("the disk is full"), "error: the disk is full\n"),
        (OSError(), "error: OSError\n"),
    ],
)
def test_a_user_facing_error_is_one_line_with_status_2(command, capsys, error, says):
    def fail(argv):
        raise error

    command(fail)
    assert cli.main(["build-vocab"]) == 2
    err = capsys.readouterr().err
    assert err.endswith(says) and err.count("\n") == 1


def test_bertloom_debug_adds_the_traceback(command, capsys, monkeypatch):
    def fail(argv):
        raise ValueError("no")

    command(fail)
    monkeypatch.setenv("BERTLOOM_DEBUG", "1")
    assert cli.main(["build-vocab"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [AssertionError("cannot happen"), RecursionError("too deep"), OverflowError("a\nb"), KeyError("x")]
)
def test_an_error_that_nobody_foresaw_is_one_line_that_names_the_file_with_its_traceback(
    command, capsys, monkeypatch, tmp_path, error
):
    def fail(argv):
        raise error

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    command(fail)
    assert cli.main(["build-vocab"]) == 70
    err = capsys.readouterr().err
    (written,) = tmp_path.iterdir()
    assert err.startswith(f"bertloom build-vocab: error: {type(error).__name__}: ") and err.count("\n") == 1
    assert "This is a bug in bertloom, or a damaged file" in err and str(written) in err
    assert "in fail\n    raise error" in written.read_text()


def test_without_room_for_a_traceback_it_is_printed(command, capsys, monkeypatch, tmp_path):
    def fail(argv):
        raise AssertionError("cannot happen")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    command(fail)
    assert cli.main(["build-vocab"]) == 70
    err = capsys.readouterr().err
    assert "Traceback" in err and err.splitlines()[-1].endswith("The traceback is above")


OUT_OF_MEMORY = type("OutOfMemoryError", (RuntimeError,), {})


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("cannot allocate 8 GB"),
        OUT_OF_MEMORY("CUDA out of memory.\nTried 8 GB"),  # torch's class
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
)
def test_a_lack_of_memory_is_one_line(command, capsys, error):
    def fail(argv):
        raise error

    command(fail)
    assert cli.main(["build-vocab"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("bertloom build-vocab: error: out of memory: ") and err.count("\n") == 1


def test_a_message_is_one_line_without_control_characters_and_not_endless():
    assert one_line("  a\n  b\x1b[31m\x07 ") == "a b\\x1b[31m\\x07"
    assert one_line("x" * 10_000) == f"{'x' * 1000} … {'x' * 1000}"


def test_an_interrupt_gives_status_130_and_system_exit_passes_through(command, capsys):
    def interrupt(argv):
        raise KeyboardInterrupt

    def leave(argv):
        raise SystemExit(7)

    command(interrupt)
    assert cli.main(["build-vocab"]) == 130
    command(leave)
    with pytest.raises(SystemExit) as exit:
        cli.main(["build-vocab"])
    assert exit.value.code == 7


def test_the_overview_imports_no_command():
    code = (
        "import sys; from jobs import cli; cli.main([]);"
        "heavy = {'torch', 'apache_beam', 'tyro', 'pyarrow'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def start_command(tmp_path, body: str, **environment: str) -> subprocess.Popen:
    """Start `bertloom inspect` in a process, with these lines as the body of its `main`."""
    (tmp_path / "stand_in.py").write_text(f"def main(argv):\n    {body}\n", encoding="utf-8")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from jobs import cli;"
        "cli.available_commands = lambda: {'inspect': ('stand_in', '')}; sys.exit(cli.main(['inspect']))"
    )
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code], env=os.environ | environment, **streams)


@pytest.mark.parametrize("lines", [1, 100_000])  # one waits in a buffer until the command ends
def test_a_reader_that_closes_the_pipe_early_causes_no_message(tmp_path, lines):
    body = f"print('x', flush=True); import time; time.sleep(0.5); print(*['x' * 100] * {lines}, sep='\\n')"
    with start_command(tmp_path, body) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_a_broken_pipe_to_something_else_is_an_error(tmp_path):
    process = start_command(tmp_path, "raise BrokenPipeError(32, 'Broken pipe')")
    out, err = process.communicate()
    assert process.returncode == 2 and err == b"bertloom inspect: error: [Errno 32] Broken pipe\n"


def test_a_full_disk_under_the_output_is_an_error_even_if_the_output_is_short(tmp_path):
    process = start_command(tmp_path, "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); print('x')")
    assert process.communicate()[1] == b"bertloom inspect: error: [Errno 28] No space left on device\n"
    assert process.returncode == 2


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("ascii", "?a? ??"), ("latin-1", "?a? ??"), ("gbk", "?a? 北京"), ("utf-8", "⟦a⟧ 北京")],
)
def test_an_output_that_is_not_utf_8_shows_question_marks_for_what_it_lacks(tmp_path, encoding, shown):
    process = start_command(tmp_path, "print('⟦a⟧ 北京')", PYTHONIOENCODING=encoding)
    out, err = process.communicate()
    assert (process.returncode, out.decode(encoding), err) == (0, shown + "\n", b"")


@pytest.mark.parametrize(
    "words, started",
    [
        (["preprocess", "--num-workers", "2"], True),
        (["build-vocab", "--num_workers=10"], True),
        (["preprocess", "--num-workers", "1"], False),
        (["preprocess"], False),
        (["preprocess", "--num-workers", "2", "--", "--runner=FlinkRunner"], False),
        (["preprocess", "--num-workers", "2", "--help"], False),
        (["inspect", "--num-workers", "2"], False),
    ],
)
def test_the_server_of_the_workers_starts_before_the_command_is_imported(monkeypatch, words, started):
    order = []
    monkeypatch.setattr(local_worker, "start", lambda: order.append("server"))
    monkeypatch.setattr(
        cli.importlib, "import_module", lambda name: order.append(name) or types.SimpleNamespace(main=lambda _: 0)
    )
    assert cli.main(words) == 0
    assert order == ["server"] * started + ["bertloom", cli.COMMANDS[words[0]][0]]
