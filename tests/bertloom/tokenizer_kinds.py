"""Small tokenizers in the forms in which well-known ones are published: the content of their tokenizer.json."""

import base64
import json
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from bertloom.tokenizer_parts import PATTERNS

TEXT = (
    "the cat sat on the mat and the dog ran after the cat",
    "she said that 1234 people don't know where they are going today",
    "我们 在 北京 大学 学习 语言 模型",
    "naïve café résumé über straße",
)
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def charsmap(replacements: dict[str, str]) -> str:
    """Return a table of SentencePiece's normalizer, as Darts builds one, in base64."""
    texts, places = b"", {}
    for key, value in replacements.items():
        places[key.encode()] = len(texts)
        texts += value.encode() + b"\0"
    units, used, bases = [0] * 256, {0}, set()

    def place(prefix: bytes, at: int) -> None:
        """Put what follows a prefix into the trie; `at` is the place of its unit."""
        nexts = sorted({key[len(prefix)] for key in places if key.startswith(prefix) and len(key) > len(prefix)})
        labels = [0] * (prefix in places) + nexts
        base = 1
        while base in bases or any(base ^ label in used for label in labels):
            base += 1
        bases.add(base)
        while len(units) <= base | 255:
            units.extend([0] * 256)
        units[at] |= (base ^ at) << 10 | (prefix in places) << 8
        used.update(base ^ label for label in labels)
        if prefix in places:
            units[base] = places[prefix] | 1 << 31
        for label in nexts:
            units[base ^ label] = label
        for label in nexts:
            place(prefix + bytes([label]), base ^ label)

    place(b"", 0)
    content = (4 * len(units)).to_bytes(4, "little") + b"".join(unit.to_bytes(4, "little") for unit in units) + texts
    return base64.b64encode(content).decode()


def _trained(tokenizer: Tokenizer, trainer: Any) -> Tokenizer:
    tokenizer.train_from_iterator(TEXT * 3, trainer)
    return tokenizer


def _template(cls: str, sep: str, tokenizer: Tokenizer) -> processors.TemplateProcessing:
    ids = [(name, tokenizer.token_to_id(name)) for name in (cls, sep)]
    return processors.TemplateProcessing(f"{cls} $A {sep}", f"{cls} $A {sep} $B:1 {sep}:1", ids)


def _wordpiece(names: list[str], **normalizer: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token=next(name for name in names if "UNK" in name)))
    tokenizer.normalizer = normalizers.BertNormalizer(**normalizer)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _trained(tokenizer, trainers.WordPieceTrainer(vocab_size=300, special_tokens=names, show_progress=False))


def bert() -> Tokenizer:
    tokenizer = _wordpiece(BERT)
    tokenizer.post_processor = _template("[CLS]", "[SEP]", tokenizer)
    return tokenizer


def mpnet() -> Tokenizer:
    tokenizer = _wordpiece(["<s>", "<pad>", "</s>", "[UNK]", "<mask>"])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def _byte_level(special: list[str], **options: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(**options)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    return _trained(tokenizer, trainer)


def roberta() -> Tokenizer:
    tokenizer = _byte_level(ROBERTA, add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def modernbert() -> Tokenizer:
    tokenizer = _byte_level(["|||IP_ADDRESS|||", "<|padding|>"], add_prefix_space=False)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens([AddedToken(" " * number, normalized=True) for number in (24, 4, 3, 2)])
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[SEP]", "[PAD]", AddedToken("[MASK]", lstrip=True)])
    tokenizer.add_tokens([AddedToken(f"[unused{number}]", normalized=True) for number in range(3)])
    tokenizer.post_processor = _template("[CLS]", "[SEP]", tokenizer)
    return tokenizer


def llama3() -> Tokenizer:
    """Also EuroBERT."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(PATTERNS["cl100k, Llama 3"]), "isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _trained(tokenizer, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False))
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|mask|>", "<|pad|>", "<|reserved_special_token_0|>"]
    tokenizer.add_special_tokens(names)
    template = _template("<|begin_of_text|>", "<|end_of_text|>", tokenizer)
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def gemma() -> Tokenizer:
    """mmBERT has this form."""
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<unused0>"]
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")  # no token reaches over a space
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    _trained(tokenizer, trainers.BpeTrainer(vocab_size=600, special_tokens=names + bytes_, show_progress=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token | {"special": token["id"] != 4} for token in content["added_tokens"][:6]]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = processors.TemplateProcessing("<bos> $A", "<bos> $A <bos> $B", [("<bos>", 2)])
    return tokenizer


def _unigram(names: list[str], unk: str) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=names, unk_token=unk, show_progress=False)
    return _trained(tokenizer, trainer)


def xlm_roberta() -> Tokenizer:
    tokenizer = _unigram(ROBERTA, "<unk>")
    table = normalizers.Precompiled(base64.b64decode(charsmap({"ﬁ": "fi", "\u3000": " ", "Ⅷ": "VIII", "é": "é"})))
    tokenizer.normalizer = normalizers.Sequence([table, normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", "<s> $A </s> </s> $B </s>", [("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def albert() -> Tokenizer:
    tokenizer = _unigram(["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"], "<unk>")
    steps = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD()]
    steps += [normalizers.StripAccents(), normalizers.Lowercase()]
    table = normalizers.Precompiled(base64.b64decode(charsmap({"ﬁ": "fi"})))
    tokenizer.normalizer = normalizers.Sequence([*steps, table, normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.post_processor = _template("[CLS]", "[SEP]", tokenizer)
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def deberta() -> Tokenizer:
    """DeBERTa, versions 2 and 3."""
    tokenizer = _unigram(["[PAD]", "[CLS]", "[SEP]", "[UNK]"], "[UNK]")
    table = normalizers.Precompiled(base64.b64decode(charsmap({"ﬁ": "fi"})))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Strip(), table, normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.add_special_tokens(["[MASK]"])
    tokenizer.post_processor = _template("[CLS]", "[SEP]", tokenizer)
    return tokenizer


MADE = {
    "bert": bert,
    "mpnet": mpnet,
    "roberta": roberta,
    "modernbert": modernbert,
    "llama3": llama3,
    "gemma": gemma,
    "xlm_roberta": xlm_roberta,
    "albert": albert,
    "deberta": deberta,
}
NAMES = {"gemma": {"cls_token": "<bos>", "sep_token": "<eos>"}}
"""What special_tokens_map.json has to say where the post-processor says too little."""
CONTENTS = {kind: json.loads(make().to_str()) for kind, make in MADE.items()}
"""The content of each tokenizer.json."""
