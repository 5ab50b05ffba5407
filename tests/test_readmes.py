"""The READMEs promise no flag, command or file that is not there, and say the same in both languages."""

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from jobs.adapt_vocab import AdaptVocabConfig
from jobs.bench_tasks import BenchTasksConfig
from jobs.browse import BrowseConfig
from jobs.build_vocab import BuildVocabConfig
from jobs.cli import COMMANDS, main
from jobs.compare import CompareConfig
from jobs.corpora import CorporaConfig
from jobs.demo import DemoConfig
from jobs.embed import EmbedConfig
from jobs.evaluate import EvaluateConfig
from jobs.explain import ExplainConfig
from jobs.export import ExportConfig
from jobs.export_data import ExportDataConfig
from jobs.finetune import FinetuneConfig
from jobs.import_model import ImportConfig
from jobs.inspect_shards import InspectConfig
from jobs.plan import PlanConfig
from jobs.plot import PlotConfig
from jobs.predict import PredictConfig
from jobs.preprocess import PreprocessConfig
from jobs.pretrain import PretrainConfig
from jobs.preview import PreviewConfig
from jobs.report import ReportConfig
from jobs.score import ScoreConfig
from jobs.support.config import preset_names
from jobs.verify import VerifyConfig
from jobs.worker_pool import WorkerPoolConfig
from model.bert_config import BertShape
from pipeline.options import option_names
from tests.model.small_task import write_model

ROOT = Path(__file__).parent.parent
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
CONFIGS = {
    "demo": DemoConfig,
    "preview": PreviewConfig,
    "corpora": CorporaConfig,
    "build-vocab": BuildVocabConfig,
    "adapt-vocab": AdaptVocabConfig,
    "preprocess": PreprocessConfig,
    "worker-pool": WorkerPoolConfig,
    "inspect": InspectConfig,
    "browse": BrowseConfig,
    "explain": ExplainConfig,
    "report": ReportConfig,
    "verify": VerifyConfig,
    "export-data": ExportDataConfig,
    "pretrain": PretrainConfig,
    "evaluate": EvaluateConfig,
    "finetune": FinetuneConfig,
    "predict": PredictConfig,
    "score": ScoreConfig,
    "embed": EmbedConfig,
    "bench-tasks": BenchTasksConfig,
    "compare": CompareConfig,
    "export": ExportConfig,
    "import": ImportConfig,
    "plot": PlotConfig,
    "plan": PlanConfig,
}


def blocks(path):
    """The code blocks of a README, without their fences."""
    return re.findall(r"^```\w*\n(.*?)^```$", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def commands(path):
    """The words of every `bertloom` command in the code blocks, up to a `--`, which begins Beam's flags."""
    for block in blocks(path):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True) if "bertloom " in line else []
            if words and words[0] == "bertloom":
                yield words[1 : words.index("--") if "--" in words else None]


def commands_in_text(path):
    """The words of every `bertloom` command outside the code blocks."""
    text = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [shlex.split(command) for command in re.findall(r"`bertloom ([^`]+)`", text)]


def flags_of(config):
    return {"--" + name.replace("_", "-") for name in (*option_names(config), *config.__dataclass_fields__)}


def test_every_counterpart_of_another_programs_option_exists():
    known = {flag for config in CONFIGS.values() for flag in flags_of(config)}
    known |= {f"--model.{field.name.replace('_', '-')}" for field in fields(BertShape)}
    rows = [line for line in (ROOT / "docs/coming-from.md").read_text("utf-8").splitlines() if line.startswith("| `--")]
    named = {flag for row in rows for flag in re.findall(r"--[\w.-]+", row.split("|")[2])}
    named = {flag if flag in known else flag.replace("--no-", "--", 1) for flag in named}
    assert len(named) > 50 and named <= known, named - known


def test_every_command_has_its_configuration_here():
    assert set(CONFIGS) == set(COMMANDS)


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_every_command_shown_exists_with_its_flags(path):
    shown = list(commands(path))
    assert {words[0] for words in shown} == set(COMMANDS) - {"demo"}  # shown as `make demo`
    for words in shown + commands_in_text(path):
        assert {word for word in words if word.startswith("--")} <= flags_of(CONFIGS[words[0]])


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_every_flag_preset_and_file_named_in_the_text_exists(path):
    text = path.read_text("utf-8")
    flags = {flag.replace("--no-", "--") for flag in re.findall(r"`(--[a-z-]{2,})[ `]", text)}
    known = set().union(*(flags_of(config) for config in CONFIGS.values()))
    assert flags and flags <= known
    assert {name for name in preset_names() if f"`{name}`" in text} == set(preset_names())
    for name in re.findall(r"\]\(([\w./-]+)\)|`((?:pipeline|model|jobs|docs)/[\w./-]+)`", text):
        assert (ROOT / (name[0] or name[1])).exists(), name


def test_the_terms_of_the_chinese_table_are_in_the_files_that_it_names():
    rows = re.findall(r"^\|[^|]*\|[^|]*\|([^|]*)\|[^|]*\|$", READMES[1].read_text("utf-8"), re.MULTILINE)
    found = [
        (file, name) for row in rows for file, name in re.findall(r"`((?:pipeline|model)/[\w/]+\.py)` `(\w+)`", row)
    ]
    assert len(found) >= 10
    for file, name in found:
        assert re.search(rf"^(class|def) {name}\b", (ROOT / file).read_text("utf-8"), re.MULTILINE), (file, name)


def test_both_languages_show_the_same_code_and_output():
    """Only the first block, with remarks on the two commands, and the third, the drawing, are translated."""
    english, chinese = (
        [block for number, block in enumerate(blocks(path)) if number not in (0, 2)] for path in READMES
    )
    assert english == chinese


def test_the_model_that_is_imported_can_be_trained_on_as_shown(tmp_path, monkeypatch, capfd):
    """With a small model in the folder's place, and a training of two steps."""
    shown = list(commands(READMES[0]))
    first = next(number for number, words in enumerate(shown) if words[0] == "import")
    importing, preprocessing, training = shown[first : first + 3]
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / importing[importing.index("--hf") + 1], max_position_embeddings=128)
    lines = (ROOT / "jobs/sample/en.jsonl").read_text("utf-8").splitlines(keepends=True)
    (tmp_path / "en.jsonl").write_text("".join(lines[:12]), "utf-8")
    training[training.index("--num-steps") + 1] = "2"
    for words in (importing, preprocessing, [*training, "--batch-size", "8", "--device", "cpu"]):
        assert main(words) == 0, capfd.readouterr().err
    assert f"begins with the weights of {tmp_path}/start/model" in capfd.readouterr().out
