"""What each page of the documentation needs before its commands run, and the commands that cannot run in a test."""

from dataclasses import dataclass, field

COMMON = {"en.jsonl": "english", "zh.txt": "chinese", "held-out.jsonl": "english"}
TASKS = {"banking/train.jsonl": "classify", "banking/dev.jsonl": "classify"}
"""The rows of the tasks in a `tasks.toml`."""
ROWS_SHOWN = {"train.csv": "shown rows 0", "dev.csv": "shown rows 1"}
MORE_HELD_OUT = {"--validation-fraction 0.05": "--validation-fraction 0.5"}
"""A small corpus has few documents, and at least eight are needed."""
DIFFERS = frozenset({"digits", "languages", "ignored", "held out", "Greek", "Latin", "fewer than the"})
TUTORIAL_STEPS = {"--num-steps 1500": "--num-steps 4", "--num-steps 1000": "--num-steps 5", "../quick/run": "quick/run"}
TUTORIAL_STEPS |= {
    "--num-steps 600": "--num-steps 4",
    "step-00000600": "step-00000004",
    "step-00001000": "step-00000005",
}
INTERRUPTION = frozenset({"stopped by SIGINT at step", "resuming at step", "changed at step"})
INTERRUPTION |= {"length", "the examples are not pairs", "finished", "run predicts this text better"}
"""Lines of a training that was stopped by Ctrl-C: here it has its few steps, and the next start has nothing to do. The last
one is a verdict, which depends on the models."""
EXAMPLE = {"example 2996": "example 3", "explain books 2996": "explain books 3"}
FEW_STEPS = {
    "--num-steps 200 ": "--num-steps 4 ",
    "--save-every 50": "--save-every 1",
    "--eval-every 100": "--eval-every 4",
    "step-00000150": "step-00000003",
    "step-00000200": "step-00000004",
}


@dataclass(frozen=True)
class Setting:
    """The files that a page names but does not make, and what its texts are changed to."""

    files: dict[str, str] = field(default_factory=dict)
    """Name of a file -> kind of its stand-in (tests/doc_stand_ins.py)."""
    swaps: dict[str, str] = field(default_factory=dict)
    """Changes of the texts of the page: fewer steps, another number of an example."""
    later: dict[str, dict[str, str]] = field(default_factory=dict)
    """Files that appear before the command with these words."""
    differs: frozenset[str] = frozenset()
    """Labels of lines that depend on the text, so they may be absent from the output of stand-ins."""


README = Setting(
    files=COMMON
    | {"bert-base-uncased": "bert", "new.txt": "lines", "sentences.txt": "lines"}
    | {"train.jsonl": "classify", "dev.jsonl": "classify", "pairs.jsonl": "embed", "dev-pairs.jsonl": "embed"}
    | TASKS
    | {"tasks.toml": "tasks"},
    swaps=EXAMPLE | {"--validation-fraction 0.05": "--validation-fraction 0.5"},
    differs=frozenset({"digits", "en.jsonl"}),
)
SETTINGS = {
    "README.md": README,
    "docs/browse.md": Setting(files={"books": "data", "run": "run"}),
    "docs/cleaning.md": Setting(
        files={"corpus_en": "english", "vocab.txt": "vocabulary", "tasks/a_en/dev.jsonl": "one document"},
    ),
    "docs/corpora.md": Setting(files={"c4/en/c4-train.00000-of-01024.json.gz": "english"}),
    "docs/domain.md": Setting(
        files={"all-MiniLM-L6-v2": "encoder", "openstax_ccby.jsonl.gz": "english", "enwiki_slice.jsonl.gz": "english"}
        | {"peps-train.jsonl": "english", "peps-held-out.jsonl": "english"}
        | TASKS
        | {"tasks.toml": "shown 0"},
        swaps=FEW_STEPS | {"frozen_layers = 4": "frozen_layers = 0"},
    ),
    "docs/experiments.md": Setting(files={"DATASET": "data 64 128"}),
    "docs/finetuning.md": Setting(
        files={"RUN": "run", "run": "run", "train.jsonl": "classify", "dev.jsonl": "classify", "texts.jsonl": "texts"}
        | {"all-MiniLM-L6-v2": "encoder", "qnli.jsonl": "embed", "banking": "tuned classify", "entities": "tuned tag"}
        | {"squad": "tuned span", "dev.json": "span", "test.conll": "tag", "bank": "tuned classify"}
        | {"new.csv": "classify comment_text", "cls_bad.tsv": "bad rows"},
    ),
    "docs/growing.md": Setting(
        files={"corpus": "english", "vocab.txt": "vocabulary"},
        later={"--out february": {"corpus/b.txt": "chinese"}, "--out march": {"corpus/c.txt": "lines of the model"}},
    ),
    "docs/hugging-face.md": Setting(
        files={"run": "run", "bert-base-uncased": "bert", "bert-tiny": "bert", "texts/a.txt": "lines of the model"}
        | {"held-out/a.jsonl": "english", "sentences.txt": "lines", "texts.jsonl": "texts", "books": "data"}
        | TASKS
        | {"tasks.toml": "shown 0"},
        swaps={"step-00000040": "step-00000004"},
    ),
    "docs/inputs.md": Setting(
        files={"vocab.txt": "vocabulary", "books.parquet": "parquet", "corpus.toml": "shown 0"}
        | {
            "crawl/a.jsonl.gz": "english half",
            "essays": "chinese files",
            "letters": "english files",
            "oscar/en_part_1.jsonl.gz": "oscar",
        }
        | {"zhwiki-pages-articles.xml.bz2": "chinese dump"},
    ),
    "docs/mixtures.md": Setting(
        files={"WEB": "data", "BOOKS": "data of 2", "GERMAN": "data", "FRENCH": "data of 2", "SWAHILI": "data of 3"}
        | {"OLD": "data", "NEW": "data of 2"}
        | {"en": "english", "zh": "chinese", "run": "run", "table.toml": "shown 0"},
    ),
    "docs/planning.md": Setting(
        files=COMMON
        | {"corpus_en": "english", "bert-base-uncased-vocab.txt": "vocabulary", "vocab.txt": "vocabulary"}
        | {"books": "data 64", "zh": "data 64 of 2"},
        differs=frozenset({"held out"}),
    ),
    "docs/preprocessing.md": Setting(files={"corpus/a.jsonl.gz": "english", "roberta-base": "bert"}),
    "docs/quick-start.md": Setting(files={"texts": "english"} | ROWS_SHOWN, swaps=MORE_HELD_OUT, differs=DIFFERS),
    "docs/quick-start.zh-CN.md": Setting(files={"texts": "chinese"} | ROWS_SHOWN, swaps=MORE_HELD_OUT, differs=DIFFERS),
    "docs/report.md": Setting(files=COMMON | {"books": "data"}, swaps=EXAMPLE, differs=frozenset({"en.jsonl"})),
    "docs/results.md": Setting(
        files={"corpus_en": "english", "zh_single": "data 64 128"}
        | dict.fromkeys(("run_en_single", "run_zh", "tasks_run"), "run")
        | dict.fromkeys(("tasks_en.toml", "tasks_zh.toml"), "shown 0")
        | {"pair_qnli_en/train.jsonl": "pair", "pair_qnli_en/dev.jsonl": "pair"},
    ),
    "docs/tokenizers.md": Setting(
        files={"texts": "english", "all-MiniLM-L6-v2": "encoder", "peps.jsonl": "english"},
    ),
    "docs/tutorial-wikipedia.md": Setting(
        files={"enwiki": "dump", "wnut17train.conll": "tag", "emerging.dev.conll": "tag", "new.txt": "lines"}
        | {"held-out.jsonl": "english", "quick/run": "run"},
        swaps=MORE_HELD_OUT | TUTORIAL_STEPS,
        differs=DIFFERS | INTERRUPTION,
    ),
    "docs/tutorial-wikipedia.zh-CN.md": Setting(
        files={"zhwiki": "chinese dump", "zh_gsdsimp-ud-train.iob2": "tag", "zh_gsdsimp-ud-dev.iob2": "tag"}
        | {"new.txt": "lines", "held-out.jsonl": "english", "quick/run": "run"},
        swaps=MORE_HELD_OUT | TUTORIAL_STEPS,
        differs=DIFFERS | INTERRUPTION,
    ),
    "docs/training.md": Setting(
        files={"DATASET": "data 128 512", "table.toml": "shown 0", "run-a": "run", "run-b": "run", "run": "run"},
    ),
}

PYTHON_NOT_RUN = {
    "docs/tokenizers.md": "a fragment: the tokenizer is the reader's",
    "docs/training.md": "tests/test_docs_snippets.py runs it",
    "README.md": "tests/test_readme_snippets.py runs it",
}

NOT_RUN = {
    r"^make |^\.venv/bin/|^python benchmarks/": "installs packages, runs every test, the demo or a benchmark",
    r"\bpip install|^python3 -m venv": "installs packages",
    r"^(docker|kubectl|gcloud|sbatch|dask|ssh|export) ": "another machine, or a program that is not here",
    r"\bs3://|\$BUCKET|/shared/": "an object store or a cluster",
    r"bertloom worker-pool": "waits for an engine until Ctrl-C; tests/jobs/test_worker_pool.py starts one",
    r"--rdzv-backend": "several machines",
    r"on_gpu\.sh|--compile": "a GPU",
    r"^mkdir .*jobs/sample": "the folder of a page is made by the test",
    r"needs the extra": "a machine without the extra",
}
"""Commands that no test runs, as patterns of the command or of what is shown below it, with the reason. The flags of those
that are `bertloom` are still checked."""
