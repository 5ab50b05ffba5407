"""Lookups in embedding tables."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Embedding(nn.Embedding):
    """torch's Embedding, whose gradient is summed in 32 bits on every device.

    On a CPU torch adds the gradients of equal ids one after the other in the type of the table. In 16 bits the sum
    stops growing after a few hundred summands, and a batch has thousands of each token type and of [MASK].
    """

    def forward(self, ids: Tensor) -> Tensor:
        """Return (..., C) from ids (...)."""
        if self.weight.is_cpu and self.weight.dtype != torch.float32:
            return F.embedding(ids, self.weight.float()).to(self.weight.dtype)
        return super().forward(ids)
