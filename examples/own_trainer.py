"""A trainer of your own: a transformers model, the batches of a data set, and a run that continues where it stopped.

    python examples/own_trainer.py DATASET checkpoint.pt --num-steps 1000

Stop it at any moment and start it again: it goes on after the last checkpoint with the next batch, and nothing is read twice
or left out. bertloom reads the data. The model, the optimizer and the loop are yours.
"""

import argparse
import os
from pathlib import Path

import torch
from transformers import BertConfig, BertForPreTraining

from bertloom import ShardDataset


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--num-steps", type=int, default=1000)
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--hidden-size", type=int, default=128)
    options = parser.parse_args(argv)
    for name in ("num_steps", "save_every", "batch_size"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} {getattr(options, name)}: expected 1 or more")
    if options.hidden_size < 32 or options.hidden_size % 32:
        parser.error(f"--hidden-size {options.hidden_size}: expected a multiple of 32, the width of a head")
    if not options.checkpoint.parent.is_dir():
        parser.error(f"{options.checkpoint}: the folder {options.checkpoint.parent} does not exist; make it first")

    torch.manual_seed(1)
    data = ShardDataset(options.dataset, batch_size=options.batch_size, seed=1)
    model = BertForPreTraining(config_of(data.vocabulary_size, options.hidden_size))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    step = 0
    if options.checkpoint.exists():
        saved = torch.load(options.checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        data.load_state_dict(saved["data"])
        step = saved["step"]
        print(f"continues after step {step}")

    while step < options.num_steps:
        for batch in data.loader(num_workers=0):  # one pass over the rest of the epoch
            torch.manual_seed(step)  # so that dropout depends on the step alone, and not on earlier draws
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            print(f"step {step}: loss {loss.item():.4f}")
            if step % options.save_every == 0 or step == options.num_steps:
                save(options.checkpoint, step, model, optimizer, data)
            if step == options.num_steps:
                break


def config_of(vocabulary_size: int, hidden_size: int) -> BertConfig:
    """Return a BERT of two layers, with heads of 32."""
    return BertConfig(
        vocab_size=vocabulary_size,
        hidden_size=hidden_size,
        num_hidden_layers=2,
        num_attention_heads=hidden_size // 32,
        intermediate_size=4 * hidden_size,
    )


def save(path: Path, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer, data: ShardDataset) -> None:
    """Write a checkpoint under another name first, so that a kill during the writing leaves the last one whole."""
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "data": data.state_dict(),
    }
    unfinished = path.with_suffix(".unfinished")
    torch.save(state, unfinished)
    os.replace(unfinished, path)


if __name__ == "__main__":
    main()
