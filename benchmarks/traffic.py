"""Kernels of a step, with the bytes that each moves and its floating-point operations, counted from shapes.

`Counter` counts operators as they are called. `compiler` is a backend of torch.compile that counts a graph's kernels once
and adds them whenever the graph runs. It fuses as Inductor does, by these rules:

1. Matrix products, attention and operators that scatter are kernels of their own. The others are fused.
2. The stage of an operator is the largest number of such kernels on a path from the graph's inputs to it. Connected
   operators of one stage are one kernel.
3. A kernel reads each of its inputs once. It writes what the graph returns and what a kernel of its own or a later stage
   reads, each once.
4. Sums over tokens (gradients of biases and of LayerNorm's weights) need the other order of loops than sums over channels.
   With `merged` they are part of the kernel that reads the same values and sums over channels, if there is one, as in
   Inductor since torch 2.10. Otherwise they are a kernel of their own for each stage, which computes again what is not
   written. Sums inside blocks of tokens, (S, BLOCK, C) to (S, C), are fused like everything else.

Nothing stays in the cache from one kernel to the next.
"""

import contextlib
import math
import weakref
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.decomposition import select_decomp_table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

# Operators that move no bytes: they change only sizes, strides, or attributes in Python.
VIEWS = set(
    "_local_scalar_dense _unsafe_view alias as_strided detach device dtype empty empty_like empty_strided expand getitem "
    "is_pinned layout lift_fresh new_empty new_empty_strided permute prim_device reshape resize_ select slice split "
    "split_with_sizes squeeze sym_size t transpose unbind unsafe_split unsqueeze view".split()
)
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm"}
ATTENTION = {"_varlen_attn", "_varlen_attn_backward", "_flash_attention_forward", "_flash_attention_backward"}
SCATTERS = {"index_put", "index_put_", "scatter", "scatter_", "scatter_add", "scatter_add_", "scatter_reduce"}
ALONE = PRODUCTS | ATTENTION | SCATTERS | {"embedding_dense_backward", "sort"}
GATHERS = {"embedding", "index", "gather", "index_select"}
OVERWRITES = {"copy_", "zero_", "fill_", "_foreach_copy_", "_foreach_zero_"}
REDUCTIONS = set("sum mean var_mean amax amin argmax max prod any var logsumexp linalg_vector_norm".split())

AttentionFlops = Callable[[int | None], int]
"""Gives the floating-point operations of one forward pass of attention of one layer with this window."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A kernel of the GPU."""

    name: str
    dtype: str
    """Type of its first result."""
    bytes: int
    flops: int = 0

    @property
    def kind(self) -> str:
        """products, attention or rest."""
        return "products" if self.name in PRODUCTS else "attention" if self.name in ATTENTION else "rest"

    def seconds(self, flops_per_second: float, bytes_per_second: float) -> float:
        """Return the shortest time that it can take."""
        return max(self.flops / flops_per_second, self.bytes / bytes_per_second)


def size(tensor: Any) -> int:
    """Return the bytes of a tensor on the GPU, or on `meta`, which has no memory; 0 for anything else."""
    if not isinstance(tensor, Tensor) or tensor.device.type == "cpu":
        return 0
    # A dimension of stride 0 is one row that is seen many times.
    return math.prod(n for n, s in zip(tensor.shape, tensor.stride()) if s) * tensor.element_size()


def operator_name(target: Any) -> str:
    """Return the name of an operator without its overload."""
    return str(getattr(target, "__name__", target)).partition(".")[0]


def nothing(window: int | None) -> int:
    """Return 0, where no attention is counted."""
    return 0


def window_of(target: Any, arguments: Any, keywords: Any) -> int | None:
    """Return how many tokens to each side a call of attention lets a token see; None for all."""
    names = [parameter.name for parameter in target._schema.arguments]
    window = (dict(zip(names, arguments)) | keywords).get("window_size")
    return None if not window or window[0] < 0 else int(window[0])


def call_flops(target: Any, arguments: Any, keywords: Any, result: Any, attention_flops: AttentionFlops) -> int:
    """Return the floating-point operations of a call. Those of attention depend on the sequences, so they are given."""
    name = operator_name(target)
    if name in ATTENTION:
        # The backward pass computes the scores again: five products of the forward pass's size, where that has two.
        number = attention_flops(window_of(target, arguments, keywords))
        return number * 5 // 2 if "backward" in name else number
    packet = getattr(target, "_overloadpacket", None)
    return flop_registry[packet](*arguments, **keywords, out_val=result) if packet in flop_registry else 0


class Counter(TorchDispatchMode):
    """Counts the operators that are called on the GPU, and the memory of the tensors that are alive."""

    def __init__(self, attention_flops: AttentionFlops = nothing) -> None:
        """
        Args:
            attention_flops: of the calls of attention.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.attention_flops = attention_flops
        self.kernels: Tally[Kernel] = Tally()
        self.live_bytes = self.peak_bytes = 0
        self._tracked: set[int] = set()
        self._is_counting = True

    @classmethod
    def is_infra_mode(cls) -> bool:
        """Return True, so that torch.compile compiles under this mode."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self._is_counting:
            self.track(tree_leaves(result))
            kernel = operator_kernel(func, args, kwargs, result, self.attention_flops)
            if kernel:
                self.kernels[kernel] += 1
        return result

    def track(self, tensors: Iterable[Any]) -> None:
        """Count the memory of these tensors as long as they live."""
        for tensor in tensors:
            if isinstance(tensor, Tensor) and tensor.device.type != "cpu":
                storage = tensor.untyped_storage()
                key, number = storage._cdata, storage.nbytes()
                if key not in self._tracked:
                    self._tracked.add(key)
                    self.live_bytes += number
                    self.peak_bytes = max(self.peak_bytes, self.live_bytes)
                    weakref.finalize(storage, self._forget, key, number)

    def _forget(self, key: int, number: int) -> None:
        self._tracked.discard(key)
        self.live_bytes -= number

    def clear(self) -> None:
        """Forget what was counted so far, but not the tensors that are alive."""
        self.kernels.clear()
        self.peak_bytes = self.live_bytes

    @contextlib.contextmanager
    def graph(self, kernels: Tally[Kernel]) -> Iterator[None]:
        """Count a compiled graph instead of the operators in it."""
        self.kernels.update(kernels)
        self._is_counting = False
        try:
            yield
        finally:
            self._is_counting = True

    @property
    def num_bytes(self) -> int:
        """Bytes moved."""
        return sum(kernel.bytes * number for kernel, number in self.kernels.items())


def operator_kernel(
    target: Any, arguments: Any, keywords: Any, result: Any, attention_flops: AttentionFlops
) -> Kernel | None:
    """Return the kernel of an operator that is called by itself, or None for one that moves no bytes."""
    name = operator_name(target)
    given = tree_leaves((arguments, keywords))
    results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
    changed = [*changed_tensors(target, arguments, keywords), *results]
    written = sum(map(size, {id(tensor): tensor for tensor in changed}.values()))
    if name in VIEWS or not written:
        return None
    if name in SCATTERS:  # in place, also in a graph: reads the values, and reads and writes as many of the result
        values = size(given[-1] if isinstance(given[-1], Tensor) else given[-2])
        read, written = 2 * values, values
    elif name in GATHERS:
        read = written  # the rows that it returns, not the whole table
    else:
        kept = {id(tensor) for tensor in changed} if name in OVERWRITES else set()
        read = sum(size(leaf) for leaf in given if id(leaf) not in kept)
    flops = call_flops(target, arguments, keywords, result, attention_flops)
    return Kernel(name=name, dtype=dtype_of(results), bytes=read + written, flops=flops)


def changed_tensors(target: Any, arguments: Any, keywords: Any) -> list[Any]:
    """Return the arguments of a call that it changes."""
    schema = target._schema.arguments
    values = {**{known.name: value for known, value in zip(schema, arguments)}, **keywords}
    # Fused optimizers may scale the gradients in place, but not here.
    names = [known.name for known in schema if known.alias_info and known.alias_info.is_write and known.name != "grads"]
    return tree_leaves([values.get(name) for name in names])


def dtype_of(results: list[Tensor]) -> str:
    return str(results[0].dtype).removeprefix("torch.") if results else ""


class GraphTraffic:
    """The kernels of one graph of torch.compile, forward or backward."""

    def __init__(self, graph: fx.Graph, merged: bool, attention_flops: AttentionFlops = nothing) -> None:
        """
        Args:
            merged: whether sums over tokens can be part of a kernel that sums over channels.
            attention_flops: as of `Counter`.
        """
        self.nodes = [
            node for node in graph.nodes if isinstance(node.target, torch._ops.OpOverload) and not is_view(node)
        ]
        self.users: dict[fx.Node, list[fx.Node]] = defaultdict(list)
        for node in self.nodes:
            for source in sources(node):
                self.users[source].append(node)
        leaves = [leaf for leaf in tree_leaves(graph.output_node().args) if isinstance(leaf, fx.Node)]
        self.returned = {source_of(leaf) for leaf in leaves}
        self.stages = self._stages()
        self.written = {node for node in self.nodes if self._is_written(node)}
        groups = self._groups()
        groups = [
            part
            for group in groups
            for part in ([group] if merged and any(map(is_row_sum, group)) else self._split(group))
        ]
        alone = [alone_kernel(node, attention_flops) for node in self.nodes if is_alone(node)]
        self.kernels = [*filter(None, alone), *map(self._fused_kernel, filter(None, groups))]

    def _stages(self) -> dict[fx.Node, int]:
        stages: dict[fx.Node, int] = defaultdict(int)
        for node in self.nodes:
            stages[node] = max((stages[s] + (ends_stage(s) and not is_alone(node)) for s in sources(node)), default=0)
        for node in reversed(self.nodes):  # what only later stages need moves to the first of them
            users = self.users[node]
            if is_pointwise(node) and users and node not in self.returned and not any(map(is_alone, users)):
                stages[node] = min(stages[user] for user in users)
        return stages

    def _is_written(self, node: fx.Node) -> bool:
        if is_alone(node) or node in self.returned:
            return True
        return any(is_alone(user) or self.stages[user] > self.stages[node] for user in self.users[node])

    def _groups(self) -> list[set[fx.Node]]:
        """Return the sets of fused operators: those of one stage that are connected or read the same value."""
        group: dict[tuple[fx.Node, int], set[fx.Node]] = {}
        for node in self.nodes:
            if not is_alone(node):
                keys = [(value, self.stages[node]) for value in (node, *sources(node))]
                union = {node}.union(*(group.get(key, ()) for key in keys))
                for member in union:
                    for value in (member, *sources(member)):
                        group[value, self.stages[node]] = union
        return list({id(union): union for union in group.values()}.values())

    def _split(self, group: set[fx.Node]) -> tuple[set[fx.Node], set[fx.Node]]:
        """Return what is not needed for sums over tokens alone, and those sums with what they compute again."""
        columns = {node for node in group if is_column_sum(node)}
        rows: set[fx.Node] = set()
        for node in reversed(self.nodes):
            users = [user for user in self.users[node] if user in group]
            if node in group - columns and (node in self.written or not users or any(user in rows for user in users)):
                rows.add(node)
        again, open_nodes = set(columns), list(columns)
        while open_nodes:
            for source in sources(open_nodes.pop()):
                if source in group - again and source not in self.written and is_pointwise(source):
                    again.add(source)
                    open_nodes.append(source)
        return rows, again

    def _fused_kernel(self, group: set[fx.Node]) -> Kernel:
        read: dict[fx.Node, int] = {}
        for node in group:
            for leaf in inputs(node):
                source = source_of(leaf)
                if source not in group:
                    number = min(value_bytes(leaf), value_bytes(source))
                    if operator_name(node.target) in GATHERS:
                        number = min(number, value_bytes(node))
                    read[source] = max(read.get(source, 0), number)
        written = sum(value_bytes(node) for node in group & self.written)
        return Kernel(name=fused_name(group), dtype="", bytes=sum(read.values()) + written)


def alone_kernel(node: fx.Node, attention_flops: AttentionFlops) -> Kernel | None:
    """Return the kernel of an operator that is not fused."""
    arguments, keywords = fx.map_arg((node.args, node.kwargs), lambda leaf: leaf.meta["val"])
    return operator_kernel(node.target, arguments, keywords, node.meta["val"], attention_flops)


def inputs(node: fx.Node) -> list[fx.Node]:
    """Return the nodes that are arguments of a node."""
    return [leaf for leaf in tree_leaves((node.args, node.kwargs)) if isinstance(leaf, fx.Node)]


def source_of(node: fx.Node) -> fx.Node:
    """Return the node that holds the memory of this one, which may be a view."""
    while node.op == "call_function" and is_view(node) and inputs(node):
        node = inputs(node)[0]
    return node


def sources(node: fx.Node) -> list[fx.Node]:
    return [source_of(leaf) for leaf in inputs(node)]


def value_bytes(node: fx.Node) -> int:
    return sum(map(size, tree_leaves(node.meta["val"])))


def is_view(node: fx.Node) -> bool:
    return operator_name(node.target) in VIEWS


def is_alone(node: fx.Node) -> bool:
    """Whether a node is a kernel of its own."""
    return node.op == "call_function" and operator_name(node.target) in ALONE


def is_reduction(node: fx.Node) -> bool:
    return operator_name(node.target) in REDUCTIONS


def is_column_sum(node: fx.Node) -> bool:
    """Whether a node is a reduction of the first dimension, but not of the last."""
    return 0 in reduced_dimensions(node) and len(inputs(node)[0].meta["val"].shape) - 1 not in reduced_dimensions(node)


def reduced_dimensions(node: fx.Node) -> set[int]:
    """Return the dimensions that a reduction sums up; none for other operators and for sums of everything."""
    if not is_reduction(node) or len(node.args) < 2:
        return set()
    number = max(len(inputs(node)[0].meta["val"].shape), 1)
    dimensions = node.args[1] if isinstance(node.args[1], list) else [node.args[1]]
    return {dimension % number for dimension in dimensions if isinstance(dimension, int)}


def is_row_sum(node: fx.Node) -> bool:
    """Whether a node is a reduction of the last dimension."""
    return len(inputs(node)[0].meta["val"].shape) - 1 in reduced_dimensions(node) if is_reduction(node) else False


def ends_stage(node: fx.Node) -> bool:
    """Whether what reads this node must wait for another kernel."""
    return is_alone(node) or node.op == "call_function" and is_reduction(node) and not is_row_sum(node)


def is_pointwise(node: fx.Node) -> bool:
    return node.op == "call_function" and not is_alone(node) and not is_reduction(node)


def fused_name(group: set[fx.Node]) -> str:
    names = {operator_name(node.target) for node in group if not is_pointwise(node)}
    names |= {"erf", "tanh", "exp", "rand"} & {operator_name(node.target) for node in group}
    return f"fused {' '.join(sorted(names))}".strip()


def compiler(counter: Counter, merged: bool = True) -> Callable[..., Any]:
    """Return a backend of torch.compile that runs graphs as they are and lets the counter count them as if compiled."""

    def compile_graph(module: fx.GraphModule, _: Any) -> Callable[..., Any]:
        kernels = Tally(GraphTraffic(module.graph, merged, counter.attention_flops).kernels)

        def run(arguments: list[Any]) -> Any:
            with counter.graph(kernels):
                results = module(*arguments)
            counter.track(tree_leaves(results))
            arguments.clear()
            return results

        run._boxed_call = True  # type: ignore[attr-defined]
        return run

    return aot_autograd(
        fw_compiler=compile_graph,
        bw_compiler=compile_graph,
        partition_fn=min_cut_rematerialization_partition,
        decompositions=select_decomp_table(),
    )
