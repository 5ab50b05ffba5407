"""The weights of a TensorFlow checkpoint of BERT, under the names that transformers gives them.

bert/encoder/layer_0/attention/self/query/kernel     bert.encoder.layer.0.attention.self.query.weight, transposed
bert/embeddings/LayerNorm/gamma                      bert.embeddings.LayerNorm.weight
bert/embeddings/word_embeddings                      bert.embeddings.word_embeddings.weight
cls/predictions/output_bias                          cls.predictions.bias
cls/seq_relationship/output_weights                  cls.seq_relationship.weight
"""

import logging
import re
from collections import Counter
from pathlib import Path

from torch import Tensor

from bertloom.counts import counted
from model.hub.tensor_bundle import read_bundle, read_index

WEIGHT = re.compile(r"(^|/)(kernel|bias|gamma|beta|output_bias|output_weights|\w+_embeddings)$")
"""Names of weights. Others are the optimizer's, such as …/kernel/adam_m, or counters, such as global_step."""
ENDINGS = {"kernel": "weight", "gamma": "weight", "output_weights": "weight", "beta": "bias", "output_bias": "bias"}
KERAS = "/.ATTRIBUTES/VARIABLE_VALUE"
"""End of the names in a checkpoint of TensorFlow 2's Keras. They do not show which layer a tensor belongs to."""

logger = logging.getLogger("bertloom")


def index_file(directory: Path) -> Path | None:
    """Return the index of the TensorFlow checkpoint in a folder, or None; ValueError if there are several."""
    found = sorted(directory.glob("*.ckpt*.index"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{directory} has several checkpoints ({names}): copy one of them to a folder of its own")
    return found[0] if found else None


def read_checkpoint(index: Path) -> dict[str, Tensor]:
    """Return the weights in a TensorFlow checkpoint. The log counts the other tensors."""
    names = list(read_index(index)[0])
    if any(name.endswith(KERAS) for name in names):
        raise ValueError(
            f"{index} is a checkpoint of Keras: only those of google-research/bert can be read; convert it with transformers"
        )
    left_out = Counter(name.rpartition("/")[2] for name in names if not WEIGHT.search(name))
    if left_out:
        kinds = ", ".join(f"{count} {name}" for name, count in left_out.most_common(4))
        more = ", …" if len(left_out) > 4 else ""
        num_left_out = counted(left_out.total(), "tensor")
        logger.warning("%s: left out %s that are not weights (%s%s)", index, num_left_out, kinds, more)
    weights = {}
    for name, tensor in read_bundle(index, WEIGHT).items():
        is_kernel = name.endswith("kernel") and tensor.ndim == 2
        weights[their_name(name)] = tensor.T.contiguous() if is_kernel else tensor
    return weights


def their_name(name: str) -> str:
    """Return the name of a weight in transformers."""
    *parents, last = name.split("/")
    path = [re.sub(r"^layer_(\d+)$", r"layer.\1", part) for part in parents]
    ending = f"{last}.weight" if last.endswith("_embeddings") else ENDINGS.get(last, last)
    return ".".join([*path, ending]) if parents else name
