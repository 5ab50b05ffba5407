"""The sum of gradients over ranks. It begins while the last backward pass of a step still runs."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.distributed import Ranks, backend_errors, in_pieces
from model.normalization import TokenBatchNorm

PIECE_NUMBERS = 8 * 2**20
"""Size of a piece of the gradient: 32 MiB. Larger ones are ready later, smaller ones do not use all of the bandwidth."""
VECTOR = 4
"""Numbers that a GPU reads at once, if their address allows it."""


class GradientSum:
    """Sums the gradients of one step over all ranks.

    Gradients are sent in pieces, from the top of the model down, which is the order in which a backward pass makes them. A
    piece is sent as soon as all of it is there and all pieces before it have been sent, so all ranks send the same pieces in
    the same order. What has not been sent when the backward pass ends is sent in `finish`: by a rank without a micro-batch
    everything, as zeros.
    """

    def __init__(self, ranks: Ranks, model: nn.Module, computing: nn.Module, idle: Iterable[nn.Parameter] = ()) -> None:
        """
        Args:
            model: has the gradients to be summed.
            computing: runs the backward pass, and may be the same. If not, its parameters have hooks by now that hand
                their gradients over to `model`.
            idle: parameters of `model` that no rank uses in this step. They get no gradient, as on one rank.
        """
        left_out = {*idle, *(own for own in model.parameters() if not own.requires_grad or ranks.size == 1)}
        pairs = zip(model.parameters(), computing.parameters(), strict=True)
        self._computed = {own: computed for own, computed in pairs if own not in left_out}
        self._pieces = list(in_pieces(reversed(self._computed), PIECE_NUMBERS))
        self._awaited = [set(piece) for piece in self._pieces]
        self._sent: list[dist.Work] = []
        # Its own sums over ranks in a backward pass would mix with these, in another order on each rank.
        self._may_overlap = not any(isinstance(module, TokenBatchNorm) for module in computing.modules())

    @contextmanager
    def overlapping(self, is_last: bool) -> Iterator[None]:
        """Send pieces during the backward pass in this block, if it is the last one of this rank in the step."""
        hooks = []
        if is_last and self._may_overlap:
            for index, piece in enumerate(self._pieces):
                for own in piece:
                    arrived = partial(self._arrived, index, own)
                    hooks.append(self._computed[own].register_post_accumulate_grad_hook(arrived))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def finish(self) -> None:
        """Send what is left, and wait for all sums. Gradients are then the sums, on all ranks."""
        while len(self._sent) < len(self._pieces):
            self._send()
        with backend_errors():
            for work in self._sent:
                work.wait()

    def _arrived(self, index: int, own: nn.Parameter, computed: Tensor) -> None:
        self._awaited[index].discard(own)
        while len(self._sent) < len(self._pieces) and not self._awaited[len(self._sent)]:
            self._send()

    def _send(self) -> None:
        """Send the next piece. Its gradients become parts of one tensor, in place of their own memory."""
        # Parameters of odd sizes come last, so that the parts of the others begin at addresses of whole vectors.
        piece = sorted(self._pieces[len(self._sent)], key=lambda own: own.numel() % VECTOR > 0)
        gradients = [torch.zeros_like(own) if own.grad is None else own.grad for own in piece]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        for own, part in zip(piece, flat.split([own.numel() for own in piece])):
            own.grad = part.view_as(own)
        with backend_errors():
            work = dist.all_reduce(flat, async_op=True)
        assert work is not None
        self._sent.append(work)
