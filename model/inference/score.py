"""How likely a pretrained model finds whole texts.

Dimensions in the comments: T real tokens, N sequences, C hidden_size, V vocab_size.
"""

from collections.abc import Sequence

import numpy as np
import torch

from model.inference.predict import WordPredictor
from model.packing import MAX_TOKENS, grouped, pack_texts


@torch.inference_mode()
def log_likelihoods(model: WordPredictor, texts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return for each text the log-probability of each token when that token is masked and all others are seen.

    The sum of a text is its pseudo-log-likelihood (Salazar et al. 2020). A text of n tokens is read n times.

    Args:
        model: a pretrained model, as `bertloom.load` returns it.
        texts: ids of each text, integers (tokens,), without special tokens. A text has at most max_position_embeddings - 2.

    Returns:
        float64 (tokens,) for each text, in nats.

    Examples:
        >>> model = bertloom.load("run")
        >>> values = bertloom.log_likelihoods(model, model.tokenizer.ids(["a text", "another"]))
        >>> [value.sum() for value in values]  # the pseudo-log-likelihood of each text
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
        batch = pack_texts(sequences).to(model.device)
        masked = batch.cu_seqlens[:-1] + torch.tensor([place + 1 for _, place in group], device=model.device)
        true = torch.tensor([int(texts[number][place]) for number, place in group], device=model.device)
        logits = model.mlm(model.encoder(batch)[masked], model.encoder.word_embeddings)  # (N, V)
        chances = logits[:, : tokenizer.vocab_size].float().log_softmax(-1)
        for (number, place), value in zip(group, chances.gather(1, true[:, None])[:, 0].tolist()):
            found[number][place] = value
    return found
