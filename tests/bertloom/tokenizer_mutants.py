"""Files of tokenizers to change and read, see `tests/mutants.py`: a tokenizer that is like the library's, or one line.

python -m tests.bertloom.tokenizer_mutants json 1000 7
"""

import json
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from bertloom.tokenizer_files import parse_tokenizer, read_tokenizer
from pipeline.text.records import Document
from pipeline.tokenizer import TokenizeConfig, make_document_tokenizer
from pipeline.vocabulary import Casing
from pipeline.vocabulary_files import read_vocabulary
from tests.bertloom.tokenizer_kinds import CONTENTS, NAMES, TEXT
from tests.mutants import Target, Use, change_value, main, mutate

TEXTS = [*TEXT, "<s> [MASK] ﬁ <unk>", "  a  b\u3000c ", "e\u0301é豈İ", "\x00\x01\ufffd", "12 345 don't", "囍😀x"]
FILES = ("tokenizer.json", "special_tokens_map.json", "tokenizer_config.json", "vocab.txt", "bert_config.json")
PATHS = ("added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model")


def directories(folder: Path) -> list[dict[str, bytes]]:
    """Directories of tokenizers: the content of their files."""
    found = []
    for kind, content in CONTENTS.items():
        names = NAMES.get(kind)
        files = parse_tokenizer(json.dumps(content).encode(), kind, names).files()
        given = {"tokenizer.json": json.dumps(content).encode()}
        given |= {"special_tokens_map.json": json.dumps(names).encode()} if names else {}
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False, "strip_accents": None}
        config |= {"mask_token": {"content": "<mask>", "lstrip": True}, "model_max_length": 512}
        found += [files, given, given | {"tokenizer_config.json": json.dumps(config).encode()}]
    words = sorted(CONTENTS["bert"]["model"]["vocab"].items(), key=lambda item: item[1])
    vocabulary = {"vocab.txt": "".join(f"{word}\n" for word, _ in words).encode()}
    bert = {"do_lower_case": True, "tokenize_chinese_chars": True, "strip_accents": None}
    found += [vocabulary, vocabulary | {"tokenizer_config.json": json.dumps(bert).encode()}]
    found.append(vocabulary | {"bert_config.json": json.dumps({"vocab_size": len(words)}).encode()})
    return found


def change_directory(original: list[dict[str, bytes]], place: Path, draw: random.Random) -> Path:
    """Change one file, mostly inside its own form."""
    files = dict(draw.choice(original))
    name = draw.choice(sorted(files))
    content = files[name]
    if name.endswith(".json") and draw.random() < 0.8:
        value = json.loads(content)
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            if name == "tokenizer.json" and isinstance(value, dict) and draw.random() < 0.8:
                part = draw.choice(PATHS)
                value[part] = change_value(value.get(part), draw)
                if draw.random() < 0.2:
                    value[part] = json.loads(
                        draw.choice(
                            [one["tokenizer.json"] for one in original if len(one) == 1 and "tokenizer.json" in one]
                        )
                    ).get(part)
            else:
                value = change_value(value, draw)
        files[name] = json.dumps(value).encode()
    else:
        files[name] = mutate(content, [*files.values()], draw)
    place.mkdir()
    for file, data in files.items():
        (place / file).write_bytes(data)
    return place


def use_directory(folder: Path) -> None:
    """Read a directory as the trainer does and as `preprocess` does; each text has the ids of the library."""
    tokenizer = read_tokenizer(str(folder))
    library = tokenizer.load()
    vocabulary = read_vocabulary(str(folder))
    casing = vocabulary.settled_casing(Casing(None, None), str(folder))
    config = TokenizeConfig(do_lower_case=casing.do_lower_case, strip_accents=casing.strip_accents)
    block = make_document_tokenizer(config, vocabulary)([Document(text.encode(), i) for i, text in enumerate(TEXTS)])
    ends = np.cumsum([0, *block.documents["num_tokens"]])
    assert int(ends[-1]) == len(block.ids)
    for text, begin, end in zip(TEXTS, ends, ends[1:], strict=False):
        ids = library.encode(text, add_special_tokens=False).ids
        assert block.ids[begin:end].tolist() == ids, (text, ids, block.ids[begin:end].tolist())
        assert max(ids, default=0) < len(tokenizer.tokens)
        vocabulary.readable.text(ids)
    assert vocabulary.kinds and len(vocabulary.ordinary) <= len(vocabulary.words)
    for content in vocabulary.files(casing).values():
        assert content


def use_files(folder: Path) -> Iterator[Use]:
    yield partial(use_directory, folder)
    for name in ("tokenizer.json", "vocab.txt"):
        if (folder / name).is_file():
            yield partial(read_vocabulary, str(folder / name))


TARGETS = {
    "directory": Target(
        directories, change_directory, lambda original, path, draw: use_files(path), 1000, errors=(ValueError,)
    )
}

if __name__ == "__main__":
    main(TARGETS)
