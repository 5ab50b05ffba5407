"""What a pretrained model makes of whole texts: how likely each is, and a vector for each.

Dimensions in the comments: T real tokens, N sequences, C hidden_size, V words.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import nn

from model.encoders import build_encoder
from model.hub.pretrained import Pretrained
from model.hub.weights import from_hugging_face, load_weights
from model.inference.predict import WordPredictor
from model.packing import MAX_TOKENS, PackedSequences, grouped, pack_sequences
from model.step import autocast, choose_device, choose_precision

Pooling = Literal["mean", "cls"]


@torch.inference_mode()
def log_likelihoods(model: WordPredictor, texts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each text the log-probability, in nats, of each of its tokens, where that one is masked and all others are seen.

    Their sum is the pseudo-log-likelihood of Salazar et al. 2020. A text of n tokens costs n readings of it.

    Args:
        texts: ids without special words, of at most max_position_embeddings - 2 tokens each.
    """
    tokenizer = model.tokenizer
    found = [np.zeros(len(ids)) for ids in texts]
    places = ((number, place) for number, ids in enumerate(texts) for place in range(len(ids)))
    for group in grouped(places, lambda pair: len(texts[pair[0]]) + 2, MAX_TOKENS):
        sequences = []
        for number, place in group:
            sequence = np.concatenate([[tokenizer.cls_id], texts[number], [tokenizer.sep_id]])
            sequence[place + 1] = tokenizer.mask_id
            sequences.append(sequence)
        batch = pack(sequences).to(model.device)
        masked = batch.cu_seqlens[:-1] + torch.tensor([place + 1 for _, place in group], device=model.device)
        true = torch.tensor([int(texts[number][place]) for number, place in group], device=model.device)
        with autocast(model.device, choose_precision("auto", model.device)):
            hidden = model.encoder(batch)  # (T, C)
            logits = model.mlm(hidden[masked], model.encoder.word_embeddings)  # (N, V)
        chances = logits[:, : tokenizer.vocab_size].float().log_softmax(-1)
        for (number, place), value in zip(group, chances.gather(1, true[:, None])[:, 0].tolist()):
            found[number][place] = value
    return found


class Embedder:
    """A model that gives vectors of texts."""

    def __init__(self, pretrained: Pretrained, pooling: Pooling, max_seq_length: int, device: str = "auto") -> None:
        """
        Args:
            pooling: mean, over all tokens, [CLS] and [SEP] among them, as sentence-transformers does; or that of [CLS].
            max_seq_length: tokens of a text that are read, these two among them.
        """
        self.tokenizer = pretrained.tokenizer
        self.pooling, self.max_seq_length = pooling, max_seq_length
        self.encoder = build_encoder(pretrained.config)
        state = from_hugging_face(pretrained.weights, pretrained.config, "Model")
        load_weights(nn.ModuleDict({"encoder": self.encoder}), state, str(pretrained.path))
        self.device = choose_device(device)
        self.encoder.to(self.device).eval()

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> tuple[np.ndarray, int]:
        """The vectors, float32 (texts, C), and how many texts were too long and lost their end."""
        room = self.max_seq_length - 2
        ids = self.tokenizer.ids(texts)
        sequences = [np.concatenate([[self.tokenizer.cls_id], part[:room], [self.tokenizer.sep_id]]) for part in ids]
        vectors = []
        for group in grouped(sequences, len, MAX_TOKENS):
            batch = pack(group).to(self.device)
            with autocast(self.device, choose_precision("auto", self.device)):
                hidden = self.encoder(batch).float()  # (T, C)
            if self.pooling == "cls":
                pooled = hidden[batch.cu_seqlens[:-1]]
            else:
                lengths = batch.cu_seqlens.diff()
                rows = torch.arange(len(lengths), device=self.device).repeat_interleave(lengths)
                pooled = hidden.new_zeros(len(lengths), hidden.shape[1]).index_add(0, rows, hidden) / lengths[:, None]
            vectors.append(pooled.cpu().numpy())  # (N, C)
        return np.concatenate(vectors), sum(len(part) > room for part in ids)


def pack(sequences: Sequence[np.ndarray]) -> PackedSequences:
    """Sequences of one segment each."""
    lengths = np.array([len(sequence) for sequence in sequences])
    return pack_sequences(np.concatenate(sequences), lengths, lengths)
