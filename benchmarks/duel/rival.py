"""The Hugging Face way from a file of texts to a masked language model, until a wall-clock budget is over.

    .venv-rivals/run_mlm/bin/python benchmarks/duel/rival.py train.jsonl vocab.txt OUT --seconds 720 --learning-rate 1e-3

It follows transformers' examples/pytorch/language-modeling/run_mlm.py line by line in what it calls: `load_dataset`,
`map` to tokenize, `map` to cut the running text into chunks of 128, DataCollatorForLanguageModeling, Trainer. Two things
differ. A callback ends the training when the budget is over. The learning rate follows the clock, as in `bertloom pretrain
--budget`: transformers' linear schedule counts in steps, and nobody knows beforehand how many steps a budget has.

Writes OUT/model, and OUT/events.jsonl with a line for each stage: its name, and the seconds since --begun.
"""

import argparse
import json
import os
import time
from itertools import chain
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", help="JSON Lines with a field `text`")
    parser.add_argument("vocab", help="vocab.txt")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, required=True, help="budget, counted from --begun")
    parser.add_argument("--begun", type=float, help="time.monotonic() at the start; default: now")
    parser.add_argument("--learning-rate", type=float, required=True, help="peak")
    parser.add_argument("--warmup-ratio", type=float, default=0.06)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    # A cache of an earlier run would save the tokenization.
    os.environ |= {"HF_HOME": str(arguments.out / "cache"), "HF_HUB_OFFLINE": "1"}
    with (arguments.out / "events.jsonl").open("w", encoding="utf-8") as file:
        train(arguments, Events(file, time.monotonic() if arguments.begun is None else arguments.begun))


class Events:
    """Writes a line for each stage that is over."""

    def __init__(self, file, begun: float) -> None:
        self._file = file
        self.begun = begun

    def write(self, name: str, **values: float) -> None:
        line = {"event": name, "seconds": round(time.monotonic() - self.begun, 3), **values}
        print(json.dumps(line), file=self._file, flush=True)


def train(arguments: argparse.Namespace, events: Events) -> None:
    import torch
    from datasets import load_dataset
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        BertTokenizerFast,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )

    torch.set_num_threads(1)
    set_seed(1)
    events.write("imported")
    tokenizer = BertTokenizerFast(vocab=arguments.vocab, do_lower_case=True, model_max_length=512)
    raw = load_dataset("json", data_files={"train": arguments.train})
    events.write("loaded")
    tokenized = raw.map(
        lambda rows: tokenizer(rows["text"], return_special_tokens_mask=True),
        batched=True,
        remove_columns=raw["train"].column_names,
    )
    events.write("tokenized")
    chunks = tokenized.map(group_texts, batched=True)["train"]
    events.write("grouped", chunks=len(chunks))

    shape = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **shape))
    deadline = events.begun + arguments.seconds
    training_begun = time.monotonic()

    def rate(_: int) -> float:
        """The share of the peak: a linear warm-up, then a linear decay to 0, over the time that training has."""
        position = (time.monotonic() - training_begun) / max(1e-9, deadline - training_begun)
        warmup = arguments.warmup_ratio
        return position / warmup if position < warmup else max(0.0, (1 - position) / (1 - warmup))

    class TimedTrainer(Trainer):
        def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, rate)
            return self.lr_scheduler

    class Budget(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 1:
                events.write("step")
            control.should_training_stop = time.monotonic() >= deadline

    trainer = TimedTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(arguments.out / "trainer"),
            per_device_train_batch_size=32,
            learning_rate=arguments.learning_rate,
            num_train_epochs=1000,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            include_num_input_tokens_seen="non_padding",
            seed=1,
        ),
        train_dataset=chunks,
        processing_class=tokenizer,
        data_collator=DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=0.15),
        callbacks=[Budget],
    )
    trainer.train()
    state = trainer.state
    events.write("trained", steps=state.global_step, tokens=int(state.num_input_tokens_seen))
    trainer.save_model(str(arguments.out / "model"))
    events.write("saved")


def group_texts(rows: dict[str, list[list[int]]], size: int = 128) -> dict[str, list[list[int]]]:
    """Join the texts of a batch and cut them into chunks; the rest at the end is dropped. As in run_mlm.py."""
    joined = {name: list(chain(*values)) for name, values in rows.items()}
    length = len(next(iter(joined.values()))) // size * size
    return {name: [values[at : at + size] for at in range(0, length, size)] for name, values in joined.items()}


if __name__ == "__main__":
    main()
