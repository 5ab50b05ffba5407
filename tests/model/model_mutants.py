"""Runs, model directories and presets to change and use, see `tests/mutants.py`.

python -m tests.model.model_mutants checkpoint 1000 7
"""

import hashlib
import io
import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import tomli_w
import torch
from safetensors.torch import load_file

from jobs.evaluate import EvaluateConfig, evaluate_model
from jobs.export import ExportConfig, export
from jobs.finetune import FinetuneConfig, finetune
from jobs.import_model import ImportConfig, import_model
from jobs.plot import PlotConfig, plot
from jobs.pretrain import PretrainConfig, pretrain
from jobs.support import finetune_run
from jobs.support.config import parse
from model.hub.pretrained import open_pretrained
from model.inference.predict import load
from model.runs.verify import check_run
from tests.jobs import small_finetune
from tests.jobs.small_run import TINY, make_data, make_run
from tests.model.small_task import VOCABULARY, sentiment_rows, write_jsonl, write_model
from tests.model.tensor_bundle_writer import block, write_bundle, write_table
from tests.mutants import Target, change_value, main, mutate


def change_json(content: bytes, draw: random.Random) -> bytes:
    value = json.loads(content)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        value = change_value(value, draw)
    return json.dumps(value).encode()


def change_tensors(content: bytes, draw: random.Random) -> bytes:
    """Change the header of safetensors, or the names and shapes that it gives."""
    size = int.from_bytes(content[:8], "little")
    header = change_json(content[8 : 8 + size], draw)
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def change_pickle(content: bytes, draw: random.Random) -> bytes:
    """Change the pickle inside an archive of torch, whose checksums are then right."""
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(sink, "w") as new:
        for entry in old.infolist():
            part = old.read(entry)
            if entry.filename.endswith("data.pkl") or draw.random() < 0.02:
                part = mutate(part, [part], draw)
            if draw.random() > 0.01:
                new.writestr(entry.filename, part)
    return sink.getvalue()


def change_file(path: Path, draw: random.Random) -> None:
    """Change one file, mostly inside its own form."""
    content = path.read_bytes()
    if draw.random() < 0.03:
        path.unlink()
        if draw.random() < 0.8:
            draw.choice([os.mkfifo, lambda at: at.symlink_to("/dev/zero"), lambda at: at.mkdir()])(path)
        return
    with suppress(ValueError, zipfile.BadZipFile):
        if path.suffix == ".json" and draw.random() < 0.85:
            content = change_json(content, draw)
        elif path.suffix == ".jsonl" and draw.random() < 0.7:
            lines = content.splitlines()
            at = draw.randrange(len(lines))
            lines[at] = change_json(lines[at], draw)
            content = b"\n".join(lines) + b"\n"
        elif path.suffix == ".safetensors" and draw.random() < 0.7:
            content = change_tensors(content, draw)
        elif path.suffix == ".bin" and draw.random() < 0.7:
            content = change_pickle(content, draw)
        else:
            content = mutate(content, [content], draw)
    path.write_bytes(content)


def seal(checkpoint: Path) -> None:
    """Make the checksums in a checkpoint right, as far as it still has them."""
    path = checkpoint / "state.json"
    with suppress(ValueError, OSError, AttributeError, TypeError, KeyError):
        if not path.is_file():
            return
        content = json.loads(path.read_bytes())
        for name in ("model.safetensors", "optimizer.safetensors"):
            if (checkpoint / name).is_file():
                data = (checkpoint / name).read_bytes()
                content["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        content.pop("sha256", None)
        content["sha256"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        path.write_text(json.dumps(content))


def mutate_run(original: Path, folder: Path, draw: random.Random) -> None:
    shutil.copytree(original / "run", folder)
    checkpoint = folder / "checkpoints/step-00000006"
    files = [checkpoint / name for name in ("state.json", "model.safetensors", "optimizer.safetensors")]
    others = [
        folder / name for name in ("metrics.jsonl", "config.toml", "vocab.txt", "tokenizer.json", "bad_steps.jsonl")
    ]
    change_file(draw.choice([files[0]] * 4 + files + others[:-1]), draw)
    if draw.random() < 0.9:
        seal(checkpoint)


def use_run(original: Path, folder: Path, draw: random.Random) -> None:
    kind = draw.randrange(6)
    data = str(original / "data")
    if kind == 0:
        export(ExportConfig(checkpoint=folder, out=folder / "out"))
    elif kind == 1:
        evaluate_model(EvaluateConfig(model=folder, data=data, max_examples=4, device="cpu"))
    elif kind == 2:
        for number, _ in enumerate(check_run(folder, [data])):
            if number == 50:
                break
    elif kind == 3:
        plot(PlotConfig(runs=(folder,), out=folder / "plot.svg"))
    elif kind == 4:
        export(ExportConfig(checkpoint=folder / "checkpoints/step-00000006", out=folder / "out"))
    else:
        preset = str(folder / "config.toml") if (folder / "config.toml").is_file() else "tiny"
        flags = ["--data", data, "--out", str(folder), "--num-steps", "6", "--device", "cpu", "--micro-batch-size", "8"]
        pretrain(parse(PretrainConfig, [preset, *flags, "--num-eval-examples", "4", "--batch-size", "16"], "x"))


def mutate_directory(original: Path, folder: Path, draw: random.Random) -> None:
    shutil.copytree(original / draw.choice(("hf", "bin", "several")), folder)
    change_file(draw.choice(sorted(folder.iterdir())), draw)


def use_directory(original: Path, folder: Path, draw: random.Random) -> None:
    if draw.random() < 0.7:
        import_model(ImportConfig(hf=folder, out=folder / "out"))
    else:
        open_pretrained(folder).digest()


def mutate_bundle(original: Path, folder: Path, draw: random.Random) -> None:
    shutil.copytree(original / "bundle", folder)
    index = folder / "bert_model.ckpt.index"
    if draw.random() < 0.3:
        return change_file(draw.choice(sorted(folder.iterdir())), draw)
    rows = json.loads((folder / "rows.json").read_text())
    rows = [(bytes.fromhex(key), bytes.fromhex(value)) for key, value in rows]
    if draw.random() < 0.3:  # lengths inside a block
        damaged = mutate(block(rows), [index.read_bytes()], draw)
        write_table(index, rows, raw=damaged)
        return
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(rows))
        key, value = rows[at]
        others = [value or b"x"]
        rows[at] = (key, mutate(value, others, draw)) if draw.random() < 0.9 else (mutate(key, others, draw), value)
    write_table(index, rows)


def mutate_tuned(original: Path, folder: Path, draw: random.Random) -> None:
    shutil.copytree(original / draw.choice(("tuned", "tuned", "unfinished")), folder)
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    change_file(draw.choice([*files, *(path for path in files if path.suffix == ".json")]), draw)
    for checkpoint in folder.glob("checkpoints/*"):
        seal(checkpoint)


def use_tuned(original: Path, folder: Path, draw: random.Random) -> None:
    kind = draw.randrange(4)
    if kind == 0:
        plot(PlotConfig(runs=(folder,), out=folder / "plot.svg"))
    elif kind == 1:
        load(folder, "cpu").predict([{"text": "a good film"}, {"text": "paris"}])
    elif kind == 2:
        export(ExportConfig(checkpoint=folder, out=folder / "out"))
    else:
        finetune(tuning(original, folder))


def tuning(original: Path, out: Path) -> FinetuneConfig:
    files = {"classify": (original / "train.jsonl", original / "train.jsonl")}
    return small_finetune.config(original / "hf", files, out, num_epochs=1, save_every=2, num_threads=1)


def mutate_preset(original: Path, folder: Path, draw: random.Random) -> None:
    folder.mkdir()
    table = tomli_w.dumps({})
    while not table.strip():
        with suppress(TypeError, ValueError, AttributeError):
            values = json.loads((original / "preset.json").read_text())
            for _ in range(draw.choice((1, 1, 2, 3))):
                values = change_value(values, draw)
            table = tomli_w.dumps(values)
    content = table.encode(errors="replace")
    (folder / "preset.toml").write_bytes(mutate(content, [content], draw) if draw.random() < 0.3 else content)


def use_preset(original: Path, folder: Path, draw: random.Random) -> None:
    flags = [
        "--data",
        str(original / "data"),
        "--out",
        str(folder / "run"),
        "--device",
        "cpu",
        "--num-eval-examples",
        "4",
    ]
    flags += ["--num-steps", "1", "--batch-size", "4", "--micro-batch-size", "4", "--cache-dir", str(folder / "cache")]
    pretrain(parse(PretrainConfig, [str(folder / "preset.toml"), *flags], "x"))


def make_originals(folder: Path) -> Path:
    """Make what the mutants are copies of."""
    torch.set_num_threads(1)  # threads do not outlive a fork
    make_run(make_data(folder / "data"), folder / "run", save_every=6)
    write_model(folder / "hf")
    state = load_file(folder / "hf/model.safetensors")
    for name in ("bin", "several"):
        shutil.copytree(folder / "hf", folder / name)
        (folder / name / "model.safetensors").unlink()
    torch.save(state, folder / "bin/pytorch_model.bin")
    names = sorted(state)
    for number in (1, 2):
        part = {name: state[name] for name in names[number - 1 :: 2]}
        torch.save(part, folder / f"several/pytorch_model-0000{number}-of-00002.bin")
    places = {name: f"pytorch_model-0000{1 + at % 2}-of-00002.bin" for at, name in enumerate(names)}
    (folder / "several/pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    make_bundle(folder / "bundle")
    write_jsonl(folder / "train.jsonl", sentiment_rows(40))
    finetune(tuning(folder, folder / "tuned"))
    make_unfinished(folder)
    preset = {"learning_rate": 1e-3, "seed": 1, "shuffle": "global", "phases": ["32:1"], "decay": "linear"}
    preset |= {"weight_decay": 0.1, "warmup_ratio": 0.1, "optimizer": "adamw", "eval_every": 5}
    preset |= {"cache_gb": 1.0, "spike_factor": "None", "keep_checkpoints": 1, "save_every": 3, "log_every": 1}
    shape = {name: value for name, value in vars(TINY).items() if name != "normalization"}
    (folder / "preset.json").write_text(json.dumps(preset | {"model": shape}))
    return folder


def make_unfinished(folder: Path) -> None:
    """A fine-tuning that was killed after its last step."""
    if (child := os.fork()) == 0:
        finetune_run.finish = lambda *arguments: os._exit(0)
        finetune(tuning(folder, folder / "unfinished"))
        os._exit(0)
    os.waitpid(child, 0)


def make_bundle(folder: Path) -> None:
    """A checkpoint of google-research/bert, with the rows of its index to mutate."""
    folder.mkdir()
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    shape |= {"max_position_embeddings": 64, "vocab_size": len(VOCABULARY), "hidden_act": "gelu"}
    (folder / "bert_config.json").write_text(json.dumps(shape))
    (folder / "vocab.txt").write_text("".join(word + "\n" for word in VOCABULARY))
    from tests.model.test_tensor_bundle import tensorflow_names, their_model

    tensors = tensorflow_names(their_model()) | {"global_step": np.array(7, np.int64)}
    rows = write_bundle(folder / "bert_model.ckpt", tensors)
    (folder / "rows.json").write_text(json.dumps([(key.hex(), value.hex()) for key, value in rows]))


def target(change: Callable[[Path, Path, random.Random], None], use: Callable[..., None]) -> Target:
    def make(original: Path, folder: Path, draw: random.Random) -> Path:
        change(original, folder, draw)
        return folder

    return Target(make_originals, make, lambda *arguments: [partial(in_memory, use, *arguments)], 200, seconds=60)


def in_memory(use: Callable[..., None], *arguments: object) -> None:
    """Use a mutant; `jobs/cli.py` makes one line of a lack of memory."""
    try:
        use(*arguments)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "DefaultCPUAllocator: can't allocate" not in str(error):
            raise


TARGETS = {
    "checkpoint": target(mutate_run, use_run),
    "directory": target(mutate_directory, use_directory),
    "bundle": target(mutate_bundle, use_directory),
    "tuned": target(mutate_tuned, use_tuned),
    "preset": target(mutate_preset, use_preset),
}

if __name__ == "__main__":
    main(TARGETS)
