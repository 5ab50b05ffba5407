"""Compare the token ids of BPE, Unigram and WordPiece with those of `tokenizers`, and the time that both need.

    python benchmarks/bench_pretokens.py --input corpus_en --name pretokens_en

Four small tokenizers are trained on a part of the text: byte-level BPE with the patterns of GPT-2 and of Llama 3, Unigram as
in XLM-RoBERTa, and WordPiece with the special tokens of RoBERTa. Each then tokenizes the cleaned text of every document,

- with `encode_batch_fast` of `tokenizers`, 256 documents at a time, and
- with `pipeline/text/pretokens.py`, in blocks of about 4 MB as in a job,

in processes of their own, on one core. A document counts as different if a single id differs. The seconds are those that the
processor worked for the whole process, with imports, loading and reading: other work on the machine changes them little.
Without arguments the text is the shipped sample.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

from setting import ROOT, add_text_arguments, header, inputs_of, pin, write_report

sys.path.insert(0, str(ROOT))

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
TRAINING_BYTES = {"Unigram": 400_000}  # its trainer takes minutes for a few megabytes of Chinese
BLOCK_BYTES = 4_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_text_arguments(parser)
    parser.add_argument("--name", default="pretokens", help="name of the file in benchmarks/results/")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # a process of this script: way, tokenizer, text
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(WAYS[arguments.one[0]](*arguments.one[1:])))
        return
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    pin(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(inputs_of(arguments), Path(folder))
    write_report(arguments.name, rows, not arguments.input)


def measure(inputs: list[str], folder: Path) -> list[str]:
    text = folder / "text.jsonl"
    size, number = write_texts(text, inputs)
    what = f"{size / 1e6:.1f} MB of text, {number:,} documents, one process on one core; seconds of the processor."
    lines = [
        *header("Token ids of BPE, Unigram and WordPiece against tokenizers", what, "tokenizers", "numpy", "pyarrow"),
        "| tokenizer | documents that differ | encode_batch_fast, seconds | pretokens, seconds | MB/s | times as fast |",
        "|---|---|---|---|---|---|",
    ]
    for name, train in TOKENIZERS.items():
        path = folder / f"{name}.json"
        path.write_text(train(first_texts(text, TRAINING_BYTES.get(name, 4_000_000))), encoding="utf-8")
        (slow, expected), (fast, found) = (run_one(way, path, text) for way in WAYS)
        different = sum(a != b for a, b in zip(expected, found, strict=True))
        lines.append(
            f"| {name} | {different} | {slow:.1f} | {fast:.1f} | {size / 1e6 / fast:.1f} | **{slow / fast:.1f}** |"
        )
        print(lines[-1], flush=True)
    return lines


def write_texts(path: Path, inputs: list[str]) -> tuple[int, int]:
    """Write the cleaned documents of the inputs. Return their bytes and their number."""
    from pipeline.inputs.discovery import find_sources
    from pipeline.inputs.documents import read_documents
    from pipeline.inputs.sources import Split
    from pipeline.text.records import Document

    size = number = 0
    with path.open("w", encoding="utf-8") as file:
        for source in find_sources(inputs):
            for item in read_documents(Split(source, 0, None)):
                if isinstance(item, Document):
                    size, number = size + len(item.text), number + 1
                    file.write(json.dumps(item.text.decode(), ensure_ascii=False) + "\n")
    return size, number


def first_texts(path: Path, most: int) -> list[str]:
    """Return the first 2,000 characters of documents, evenly from all of them, of about this number of bytes in all."""
    texts = [text[:2000].replace("\n", " ") for text in read_texts(path)]
    step = max(1, sum(map(len, texts)) // most)
    return texts[::step]


def read_texts(path: str | Path) -> list[str]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def run_one(way: str, tokenizer: Path, text: Path) -> tuple[float, list[str]]:
    """Return the processor's seconds for a process that tokenizes all texts, and a digest of the ids of each."""
    start = processor_seconds()
    command = [sys.executable, __file__, "--one", way, str(tokenizer), str(text)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return processor_seconds() - start, json.loads(done.stdout)


def processor_seconds() -> float:
    """Return the processor's seconds for all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# ---- tokenizers


def byte_level(texts: list[str], pattern: str) -> str:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    from bertloom.tokenizer_parts import PATTERNS

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERNS[pattern]), "isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=8000, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()


def unigram(texts: list[str]) -> str:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    signs = pre_tokenizers.Punctuation()  # SentencePiece trains on words without signs
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), signs])
    trainer = trainers.UnigramTrainer(
        vocab_size=8000, special_tokens=SPECIAL, unk_token="<unk>", max_piece_length=8, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    return tokenizer.to_str()


def wordpiece(texts: list[str]) -> str:
    from tokenizers import Tokenizer, models, trainers

    from pipeline.vocabulary import cut_as_bert

    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    cut_as_bert(tokenizer, True, None)
    trainer = trainers.WordPieceTrainer(vocab_size=8000, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()


TOKENIZERS = {
    "BPE, GPT-2": lambda texts: byte_level(texts, "GPT-2"),
    "BPE, Llama 3": lambda texts: byte_level(texts, "cl100k, Llama 3"),
    "Unigram": unigram,
    "WordPiece": wordpiece,
}


# ---- each in its own process; both return a digest of the ids of each document


def with_tokenizers(tokenizer: str, text: str) -> list[str]:
    import numpy as np
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(tokenizer)
    loaded.encode_special_tokens = True
    texts, found = read_texts(text), []
    for i in range(0, len(texts), 256):
        batch = [one.replace("\n", " ") for one in texts[i : i + 256]]
        for encoding in loaded.encode_batch_fast(batch, add_special_tokens=False):
            found.append(digest(np.array(encoding.ids, np.uint16)))
    return found


def with_pretokens(tokenizer: str, text: str) -> list[str]:
    import numpy as np
    from tokenizers import Tokenizer

    from pipeline.text.pretokens import PreTokens

    loaded = Tokenizer.from_file(tokenizer)
    kernel = PreTokens(loaded, loaded.get_vocab_size())
    found, block, size = [], [], 0
    texts = [one.encode() for one in read_texts(text)]
    for i, one in enumerate(texts, 1):
        block.append(one)
        size += len(one)
        if size >= BLOCK_BYTES or i == len(texts):
            tokens = kernel(block)
            found += map(digest, np.split(tokens.ids, np.cumsum(tokens.counts)[:-1]))
            block, size = [], 0
    return found


def digest(ids) -> str:
    return sha256(ids.tobytes()).hexdigest()[:16]


WAYS = {"tokenizers": with_tokenizers, "pretokens": with_pretokens}

if __name__ == "__main__":
    main()
