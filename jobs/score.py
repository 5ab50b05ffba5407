"""Score texts by their pseudo-log-likelihood and pseudo-perplexity under a pretrained model (Salazar et al. 2020).

    bertloom score --model RUN --input sentences.txt --out scores.jsonl
    echo '{"text": "Paris is the capital of France."}' | bertloom score --model RUN --input - --out -

Each token is masked by itself and predicted from all others: `log_likelihood` is the sum of the log-probabilities in nats,
`perplexity` the exponential of their negative mean. Only scores of one model, on texts of its language, can be compared.
A text of n tokens is read n times. Output is JSONL, one line per row, in the order of the rows.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from bertloom.counts import counted
from jobs.support.config import parse
from jobs.support.finetune_config import pairs


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Score texts by their pseudo-log-likelihood and pseudo-perplexity."""

    model: Path
    """Run folder of `bertloom pretrain`, or a directory in transformers' form."""
    input: Path
    """Texts: .txt (a text in each line), .jsonl, .csv, .tsv, .parquet, .arrow, or - for JSONL on standard input."""
    out: Path = Path("-")
    """File to write, or - for standard output."""
    overwrite: bool = False
    """Replace the file of --out if it exists."""
    columns: tuple[str, ...] = ()
    """Name of the column of texts, if it is not found automatically: text=sentence."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """What to do with a row that cannot be used: stop and report it, or write {"error": …} in its place."""
    device: str = "auto"
    """Device: cpu, cuda, cuda:1, … auto is cuda if available, otherwise cpu."""

    def __post_init__(self) -> None:
        pairs("columns", self.columns)


def main(argv: Sequence[str]) -> None:
    config = parse(ScoreConfig, argv, prog="bertloom score")
    from jobs.support.outputs import check_output, write_rows

    check_output(config.out, [config.input], config.model, overwrite=config.overwrite)
    write_rows(config.out, score(config))


def score(config: ScoreConfig) -> Iterator[dict[str, Any]]:
    """Yield one output line per row."""
    from jobs.support.texts import TEXT_FORMS, parse_text, read_input
    from model.hub.pretrained import open_pretrained
    from model.inference.predict import WordPredictor
    from model.inference.score import log_likelihoods
    from model.tasks.values import BadRow

    model = WordPredictor(open_pretrained(config.model), config.device)
    longest = model.config.shape.max_position_embeddings - 2
    columns = pairs("columns", config.columns)
    num_bad = 0
    with tqdm(desc="score", unit=" rows", file=sys.stderr, disable=None) as bar:
        for chunk in read_input(config.input, TEXT_FORMS, parse_text, columns, config.on_bad_row):
            ids = iter(model.tokenizer.ids([row.text for _, row in chunk if not isinstance(row, BadRow)]))
            rows = []
            for place, row in chunk:
                part = None if isinstance(row, BadRow) else next(ids)
                if part is not None and not 0 < len(part) <= longest:
                    row, part = BadRow(f"has {len(part):,} tokens, the model reads 1 to {longest}"), None
                    if config.on_bad_row == "stop":
                        raise ValueError(
                            f"--input {config.input}: {place}: {row}: shorten it, or skip such rows with --on-bad-row skip"
                        )
                rows.append((place, row, part))
            found = iter(log_likelihoods(model, [part for _, row, part in rows if part is not None]))
            for place, row, _ in rows:
                if isinstance(row, BadRow):
                    num_bad += 1
                    yield {"error": f"{place}: {row}"}
                    continue
                chances = next(found)
                name = {} if row.id is None else {"id": row.id}
                yield name | {
                    "log_likelihood": round(float(chances.sum()), 6),
                    "perplexity": round(math.exp(-chances.mean()), 6),
                    "num_tokens": len(chances),
                }
            bar.update(len(rows))
    if num_bad:
        print(f"{counted(num_bad, 'row')} could not be used: the output gives the reasons", file=sys.stderr)
