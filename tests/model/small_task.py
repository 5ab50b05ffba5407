"""A small model with a vocabulary of its own, and rows for it, for tests of what is done with models."""

import json
import random
import string
from pathlib import Path

from tokenizers.implementations import BertWordPieceTokenizer

from bertloom.tokenizer_files import parse_tokenizer
from model.hub.tokenizer import TextTokenizer
from model.hub.weights import save_pretrained
from tests.model.small_model import random_model

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [*string.ascii_lowercase, *string.digits, *".,!?-()'"]
CHINESE = list("北京上海是中国的首都城市大学在哪里人")
WORDS = [
    "good",
    "bad",
    "film",
    "paris",
    "london",
    "is",
    "the",
    "capital",
    "of",
    "france",
    "in",
    "where",
    "anna",
    "lives",
]
VOCABULARY = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *CHINESE, *WORDS]


def small_tokenizer() -> TextTokenizer:
    """Words of VOCABULARY, lower-cased; other words in letters."""
    words = {word: number for number, word in enumerate(VOCABULARY)}
    content = BertWordPieceTokenizer(words, lowercase=True).to_str().encode()
    return TextTokenizer(parse_tokenizer(content, "VOCABULARY"))


def write_model(directory: Path, **changes) -> Path:
    """Writes a BertForPreTraining with random weights in transformers' form."""
    model = random_model(**{"vocab_size": len(VOCABULARY)} | changes)
    save_pretrained(model, directory, small_tokenizer())
    return directory


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def sentiment_rows(number: int, seed: int = 0) -> list[dict]:
    """Texts of different lengths whose class is the word good or bad in them: a model can learn it."""
    draw = random.Random(seed)
    rows = []
    for _ in range(number):
        label = draw.choice(["good", "bad"])
        words = draw.choices(["film", "paris", "is", "the", "of", "中国", "anna"], k=draw.randint(1, 12))
        words.insert(draw.randrange(len(words) + 1), label)
        rows.append({"text": " ".join(words), "label": label})
    return rows


def pair_rows(number: int, seed: int = 0) -> list[dict]:
    """A question and a sentence, and whether that says where anna lives."""
    draw = random.Random(seed)
    rows = []
    for _ in range(number):
        word, tail = draw.choice(["lives", "is"]), " !" * draw.randint(0, 5)
        label = "yes" if word == "lives" else "no"
        rows.append({"a": "where is anna ?", "b": f"anna {word} in paris{tail}", "label": label})
    return rows


def number_rows(number: int, seed: int = 0) -> list[dict]:
    """Texts with as many `good` as their number."""
    draw = random.Random(seed)
    return [{"text": "film " + "good " * (count := draw.randint(0, 5)), "label": count / 2} for _ in range(number)]


def tag_rows(number: int, seed: int = 0) -> list[dict]:
    """Words, of which cities and names are tagged."""
    draw = random.Random(seed)
    kinds = {"paris": ["B-LOC"], "北京": ["B-LOC"], "anna": ["B-PER"], "is": ["O"], "unheard": ["O"], "in": ["O"]}
    rows = []
    for _ in range(number):
        tokens = draw.choices(list(kinds), k=draw.randint(1, 9))
        rows.append({"tokens": tokens, "tags": [tag for token in tokens for tag in kinds[token]]})
    return rows


def span_rows(number: int, seed: int = 0, unanswerable: bool = False) -> list[dict]:
    """Where somebody lives, asked of a context that says it, or with `unanswerable` at times does not."""
    draw = random.Random(seed)
    rows = []
    for index in range(number):
        city = draw.choice(["paris", "london", "北京", "上海"])
        before, after = ("the film is good . " * draw.randint(0, 3) for _ in range(2))
        is_known = not unanswerable or draw.random() < 0.6
        context = f"{before}anna lives in {city} . {after}" if is_known else f"{before}paris is in france . {after}"
        answers = [{"text": city, "answer_start": context.index(city)}] if is_known else []
        rows.append(
            {
                "id": str(index),
                "question": "where is anna ?",
                "context": context,
                "answers": answers,
                "is_impossible": not is_known,
            }
        )
    return rows


def label_rows(number: int, seed: int = 0) -> list[dict]:
    """Texts that have a label for each of three words in them."""
    draw = random.Random(seed)
    rows = []
    for _ in range(number):
        labels = [label for label in ("good", "london", "中") if draw.random() < 0.4]
        words = labels + draw.choices(["film", "is", "the", "of"], k=draw.randint(1, 6))
        rows.append({"text": " ".join(draw.sample(words, len(words))), "labels": labels})
    return rows


def choice_rows(number: int, seed: int = 0) -> list[dict]:
    """Two to four endings, of which the one with the word good is right."""
    draw = random.Random(seed)
    rows = []
    for _ in range(number):
        endings = draw.sample(["bad film .", "in 北京", "anna lives", "the capital", "france"], draw.randint(1, 3))
        answer = draw.randint(0, len(endings))
        endings.insert(answer, draw.choice(["good film !", "paris is good"]))
        rows.append(
            {
                "context": "the film is" + " in paris" * draw.randint(0, 4),
                "question": "where _ is ?",
                "endings": endings,
            }
            | {"answer": answer}
        )
    return rows


def search_rows(number: int, seed: int = 0) -> list[dict]:
    """A question about a city, a text that names it, and perhaps one that names another: a model can learn it."""
    draw = random.Random(seed)
    cities = ["paris", "london", "北京", "上海", "france", "中国"]
    rows = []
    for _ in range(number):
        city, other = draw.sample(cities, 2)
        row = {"query": f"where is {city}" + " ?" * draw.randint(0, 3), "positive": f"anna lives in {city} ."}
        rows.append(row | {"negative": f"anna is in {other} ." if draw.random() < 0.5 else ""})
    return rows


ROWS = {
    "classify": sentiment_rows,
    "pair": pair_rows,
    "regress": number_rows,
    "tag": tag_rows,
    "span": span_rows,
    "multilabel": label_rows,
    "choice": choice_rows,
    "embed": search_rows,
}
"""Rows for each task."""
