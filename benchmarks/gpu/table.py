"""The one table of `bench_gpu.py`: each line is on the disk as soon as it is known. Imports no torch."""

from pathlib import Path

from benchmarks.gpu.answers import Answer
from benchmarks.gpu.cases import ALL, Case, Speed

COLUMNS = (
    *("case", "real tokens/s", f"times {ALL}", "MFU", "of a large product", "waiting for data", "peak GiB"),
    *("first two updates, s", "graphs", "result"),
)
HEAD = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]


class Table:
    """A Markdown file with one table that grows."""

    def __init__(self, path: Path, lines: list[str]) -> None:
        """Begin the file with these lines. The last ones are the head of the table."""
        self.path = path
        self.num_failures = self.num_left_out = self.num_rows = 0
        self._speeds: dict[str, float] = {}
        """Tokens per second with all levers, by shape."""
        self._product: float | None = None
        """FLOP per second of a large product."""
        path.write_text("", encoding="utf-8")
        self._write(*lines)

    def add(self, case: Case, answer: Answer) -> None:
        """Add the line of a case."""
        self.num_failures += answer.is_failure
        if not isinstance(case, Speed):
            self._product = answer.flops or self._product
        mark = "**fails**: " if answer.is_failure else ""
        self._row(case.name, *self._numbers(case, answer), mark + answer.result.replace("|", "\\|"))

    def _numbers(self, case: Case, answer: Answer) -> list[str]:
        """Return the cells between the name and the result."""
        speed, flops = answer.tokens_per_second, answer.flops
        if not isinstance(case, Speed) or speed is None or flops is None:
            return [""] * (len(COLUMNS) - 2)
        if case.name == f"{case.shape}: {ALL}":
            self._speeds[case.shape] = speed
        all_levers = self._speeds.get(case.shape)
        return [
            f"{speed:,.0f} [{answer.slowest:,.0f}, {answer.fastest:,.0f}]",
            shown(all_levers and speed / all_levers, ".2f"),
            shown(answer.mfu, ".1%"),
            shown(self._product and flops / self._product, ".1%"),
            shown(answer.waiting, ".1%"),
            shown(answer.peak_gib, ".1f"),
            shown(answer.start_seconds, ".1f"),
            f"{answer.graphs}" + f" and {answer.graph_breaks} breaks" * (answer.graph_breaks > 0),
        ]

    def leave_out(self, case: Case, reason: str) -> None:
        """Add the line of a case that is not run."""
        self.num_left_out += 1
        self._row(case.name, *[""] * (len(COLUMNS) - 2), reason)

    def close(self, seconds: float) -> None:
        """Add the last lines."""
        counts = f"{self.num_rows} cases, {self.num_left_out} not run, {self.num_failures} failed"
        self._write("", f"{counts}, in {seconds:.0f} s.")
        print(self.path)

    def _row(self, *cells: str) -> None:
        self.num_rows += 1
        self._write(f"| {' | '.join(cells)} |")

    def _write(self, *lines: str) -> None:
        """Print lines and append them to the file."""
        with open(self.path, "a", encoding="utf-8") as file:
            for line in lines:
                print(line, flush=True)
                file.write(f"{line}\n")


def shown(value: float | None, form: str) -> str:
    """Return a number in a format, or nothing if it is not known."""
    return "" if value is None else format(value, form)
