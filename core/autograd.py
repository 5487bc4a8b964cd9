"""The tape: which op made which tensor, and the engine that walks it backwards.

Rules live apart from the tape. An `Op` knows how to compute and how to differentiate itself;
`apply` runs one and records a `Node`; `backward` visits the nodes, newest first, and adds gradients
up. An op's rule never deals with broadcasting: the engine sums each gradient back to its input.

Primitive rules (`trine.primitives`) are written against a namespace of primitive ops which is
either the backend, on arrays, or, when the gradient itself shall be differentiable
(`create_graph=True`), the same primitives on tensors. Fused ops work on arrays only and refuse
that; their `composed` formula in primitives, used inside `with composed_ops():`, allows it.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from trine.dtypes import Array, DType, is_float
from trine.errors import GraphError

if TYPE_CHECKING:
    from trine.backends import Backend
    from trine.tensor import Tensor


@dataclass(frozen=True)
class Op:
    """How to compute a result and its gradient.

    A fused op: forward(backend, *arrays, **attrs) -> (out or tuple of outs, saved arrays) and
    backward(backend, saved, grads, needs, **attrs) -> one gradient, or None, for each input.
    A primitive: forward(backend, *arrays, **attrs) -> out and
    backward(ops, grad, needs, *kept, **attrs), where `kept` are the inputs numbered in `keeps`, with
    `keeps_shapes` the shape and dtype of every input instead, and with `keeps_out` the output too.
    """

    name: str
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    keeps: tuple[int, ...] = ()
    keeps_shapes: bool = False
    keeps_out: bool = False
    primitive: bool = False
    view: bool = False
    """Whether the result may share memory with the first input."""
    composed: Callable[..., Any] | None = None


def define(
    name: str,
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    *,
    keeps: tuple[int, ...] = (),
    composed: Callable[..., Any] | None = None,
) -> Op:
    """Make a fused op. `keeps` numbers the inputs that `forward` saves for `backward`.

    `composed(*tensors, **attrs)` is the same formula in primitives.
    """
    return Op(name, forward, backward, keeps=keeps, composed=composed)


class _Mode(threading.local):
    enabled = True
    composed = False
    watcher: Callable[..., None] | None = None


_mode = _Mode()
_order = itertools.count()


def is_grad_enabled() -> bool:
    """Return whether ops are recorded in this thread."""
    return _mode.enabled


@contextmanager
def set_grad_enabled(enabled: bool) -> Iterator[None]:
    """Record ops, or don't, inside the block (or the decorated function)."""
    before = _mode.enabled
    _mode.enabled = enabled
    try:
        yield
    finally:
        _mode.enabled = before


def no_grad() -> Any:
    """Don't record ops inside the block or the decorated function."""
    return set_grad_enabled(False)


def enable_grad() -> Any:
    """Record ops inside the block even where `no_grad` is in force outside."""
    return set_grad_enabled(True)


@contextmanager
def composed_ops() -> Iterator[None]:
    """Run fused ops by their composed formulas inside the block: slower, differentiable twice."""
    before = _mode.composed
    _mode.composed = True
    try:
        yield
    finally:
        _mode.composed = before


@contextmanager
def watching(callback: Callable[..., None]) -> Iterator[None]:
    """Call `callback(op, inputs, attrs, results)` for each op that is recorded inside the block."""
    before = _mode.watcher
    _mode.watcher = callback
    try:
        yield
    finally:
        _mode.watcher = before


class Meta(NamedTuple):
    """What a rule may know of an input that it does not keep."""

    shape: tuple[int, ...]
    dtype: DType


class Node:
    """One application of an op: what its gradient needs and whom to hand it to."""

    __slots__ = (
        "__weakref__", "attrs", "backend", "hooks", "kept", "metas", "needs", "op", "order",
        "parents", "retained", "saved", "versions",
    )  # fmt: skip

    def __init__(
        self, op: Op, backend: Backend, inputs: Sequence[Tensor | None], attrs: Any
    ) -> None:
        self.op = op
        self.backend = backend
        self.attrs = attrs
        self.order = next(_order)
        needs: list[bool] = []
        parents: list[tuple[Any, int] | None] = []
        for t in inputs:
            if t is None or not t.requires_grad:
                needs.append(False)
                parents.append(None)
            else:  # to the node that made the input, or to the input itself if it is a leaf
                needs.append(True)
                parents.append((t if t.node is None else t.node, t.index))
        self.needs = tuple(needs)
        self.parents = parents
        kept = [inputs[i] for i in op.keeps]
        self.kept: Any = kept if op.primitive else None
        if op.keeps_shapes:
            self.kept = [Meta(t.shape, t.dtype) for t in inputs if t is not None]
        self.versions = [(t.version, t.version.count) for t in kept if t is not None]
        self.saved: Any = ()
        self.metas: Sequence[Meta] = ()
        self.hooks: dict[int, list[Callable[..., Any]]] | None = None
        self.retained: dict[int, weakref.ref[Tensor]] | None = None

    def free(self) -> None:
        """Drop what was saved; a later backward through this node is refused."""
        self.saved = self.kept = None
        self.versions = []


def apply(op: Op, *inputs: Tensor | None, **attrs: Any) -> Any:
    """Run an op on tensors and record it; returns a tensor or a tuple of tensors.

    The backend is the inputs'. Raises ValueError naming both backends if they differ.
    """
    first: Any = None
    backend: Any = None
    recording = False
    arrays: list[Any] = []
    for t in inputs:
        if t is None:
            arrays.append(None)
            continue
        if backend is None:
            first, backend = t, t.backend
        elif t.backend is not backend:
            raise ValueError(
                f"[{op.name}] expected tensors on one backend, got one on {backend.name!r} and "
                f"one on {t.backend.name!r}. Move one, e.g. x.to({backend.name!r})."
            )
        if t.requires_grad:
            recording = True
        arrays.append(t.data)
    if _mode.composed and op.composed is not None:
        return op.composed(*inputs, **attrs)
    if op.primitive:
        out, saved = op.forward(backend, *arrays, **attrs), None
    else:
        out, saved = op.forward(backend, *arrays, **attrs)
    outs = out if isinstance(out, tuple) else (out,)
    results = [first._wrap(array, backend) for array in outs]
    if op.view:
        results[0].version = first.version  # a view changes when its base is changed in place
    if recording and _mode.enabled:
        _record(op, backend, inputs, attrs, (out,) if op.keeps_out else saved, results)
    return tuple(results) if isinstance(out, tuple) else results[0]


def _record(
    op: Op, backend: Backend, inputs: Sequence[Tensor | None], attrs: Any, saved: Any,
    results: list[Tensor],
) -> None:  # fmt: skip
    """Give those results that have gradients a node; a result of integers or truths has none."""
    floats = [is_float(result.data.dtype) for result in results]
    if True not in floats:
        return
    node = Node(op, backend, inputs, attrs)
    node.saved = saved
    metas = []
    for index, result in enumerate(results):
        array = result.data
        metas.append(Meta(array.shape, array.dtype))
        if saved:
            for kept in saved:
                if kept is array:
                    node.versions.append((result.version, result.version.count))
        if floats[index]:
            result.requires_grad, result.node, result.index = True, node, index
    node.metas = metas
    if _mode.watcher is not None:
        _mode.watcher(op, inputs, attrs, results)


def backward(
    outputs: Sequence[Tensor],
    gradients: Sequence[Tensor],
    *,
    create_graph: bool = False,
    retain_graph: bool = False,
    wanted: Sequence[Tensor] | None = None,
) -> list[Tensor | None]:
    """Carry gradients from outputs to the leaves, or only to the `wanted` tensors.

    Without `wanted`, leaves' `.grad` is added to. With it, nothing else is touched, and the
    gradients of the wanted tensors are returned in order (None where there is no path).
    """
    from trine.primitives import Traced  # noqa: PLC0415  primitives are defined on this module

    engine = _Engine(create_graph, wanted)
    for tensor, gradient in zip(outputs, gradients, strict=True):
        target = tensor.node if tensor.node is not None else tensor
        ops = Traced(tensor.backend) if create_graph else tensor.backend
        engine.add(ops, (target, tensor.index), gradient if create_graph else gradient.data)
    with set_grad_enabled(create_graph):
        while engine.queue:
            node = heapq.heappop(engine.queue)[1]
            grads = engine.take(node)
            ops = Traced(node.backend) if create_graph else node.backend
            results = _run_rule(node, ops, grads, create_graph)
            for edge, needed, gradient in zip(node.parents, node.needs, results, strict=True):
                if needed and gradient is not None and edge is not None:
                    engine.add(ops, edge, gradient)
            if not (retain_graph or create_graph):
                node.free()
        return engine.finish()


def _run_rule(node: Node, ops: Any, grads: list[Any], create_graph: bool) -> Iterable[Any]:
    op = node.op
    if node.saved is None and node.kept is None:
        raise GraphError(
            f"[backward] expected a graph that was not used yet, but what {op.name} saved is freed. "
            "Call backward(retain_graph=True) the first time, or compute the loss again."
        )
    for version, count in node.versions:
        if version.count != count:
            raise GraphError(
                f"[backward] expected what {op.name} keeps unchanged since the forward pass, but its "
                f"input or output was changed in place {version.count - count} time(s). Clone it first, "
                "or change it after backward."
            )
    if not op.primitive:
        if create_graph:
            fix = (
                "Compute the forward pass inside `with trine.autograd.composed_ops():`."
                if op.composed is not None
                else "No composed formula exists for it."
            )
            raise GraphError(
                f"[{op.name}] expected an op that can be differentiated twice, but {op.name} is "
                f"fused. {fix}"
            )
        results: Iterable[Any] = op.backward(
            node.backend, node.saved, tuple(grads), node.needs, **node.attrs
        )
        return results
    kept: list[Any] = list(node.kept or ())
    if not create_graph and not op.keeps_shapes:
        kept = [None if t is None else t.data for t in kept]
    if op.keeps_out:
        out = node.saved[0]
        kept.append(ops.made_by(node, out) if create_graph else out)
    gradients: Iterable[Any] = op.backward(ops, grads[0], node.needs, *kept, **node.attrs)
    return gradients


class _Engine:
    """Gradients under way: sums per node, a queue of nodes ready, newest first."""

    def __init__(self, create_graph: bool, wanted: Sequence[Tensor] | None) -> None:
        self.create_graph = create_graph
        self.queue: list[tuple[int, Node]] = []
        self.sums: dict[int, list[Any]] = {}  # id(node) -> one [gradient, owned] or None an output
        self.leaves: dict[int, tuple[Tensor, list[Any]]] = {}
        self.wanted = wanted
        self.captured: dict[tuple[int, int], Any] = {}
        if wanted is not None:
            self.keys = [(id(t if t.node is None else t.node), t.index) for t in wanted]

    def add(self, ops: Any, edge: tuple[Any, int], gradient: Any) -> None:
        """Add a gradient to what an edge leads to, summed to its shape."""
        target, index = edge
        if isinstance(target, Node):
            shape = target.metas[index].shape
            slots = self.sums.get(id(target))
            if slots is None:
                slots = self.sums[id(target)] = [None] * len(target.metas)
                heapq.heappush(self.queue, (-target.order, target))
        else:
            shape = target.shape
            slots = self.leaves.setdefault(id(target), (target, [None]))[1]
            index = 0
        if gradient.shape != shape:
            gradient = ops.sum_to(gradient, shape=shape)
        held = slots[index]
        if held is None:
            slots[index] = [gradient, False]
        elif self.create_graph:
            held[0] = ops.add(held[0], gradient)
        elif held[1]:
            ops.accumulate(held[0], gradient)
        else:  # the first gradient may be shared with another edge: a new sum, owned from now on
            held[0], held[1] = ops.add(held[0], gradient), True

    def take(self, node: Node) -> list[Any]:
        """Return the finished gradients of a node's outputs, after hooks."""
        slots = self.sums.pop(id(node))
        grads = [None if held is None else held[0] for held in slots]
        if node.hooks is None and node.retained is None and self.wanted is None:
            return grads
        for index in range(len(grads)):
            if grads[index] is None:
                continue
            hooks = (node.hooks or {}).get(index, ())
            grads[index] = self._hooked(node.backend, grads[index], hooks)
            reference = (node.retained or {}).get(index)
            tensor = reference() if reference is not None else None
            if tensor is not None and self.wanted is None:
                _accumulate(tensor, grads[index], self.create_graph)
            if self.wanted is not None:
                self.captured[id(node), index] = grads[index]
        return grads

    def _hooked(self, backend: Backend, gradient: Any, hooks: Iterable[Callable[..., Any]]) -> Any:
        for hook in hooks:
            tensor = gradient if self.create_graph else _tensor_type()._wrap(gradient, backend)
            changed = hook(tensor)
            if changed is not None:
                gradient = changed if self.create_graph else changed.data
        return gradient

    def finish(self) -> list[Tensor | None]:
        """Write the leaves' gradients, or return those that were wanted."""
        for tensor, slots in self.leaves.values():
            gradient = self._hooked(tensor.backend, slots[0][0], tensor.hooks or ())
            if self.wanted is None:
                _accumulate(tensor, gradient, self.create_graph, owned=slots[0][1])
            else:
                self.captured[id(tensor), 0] = gradient
        if self.wanted is None:
            return []
        found = []
        for tensor, key in zip(self.wanted, self.keys, strict=True):
            gradient = self.captured.get(key)
            if gradient is not None and not self.create_graph:
                gradient = tensor._wrap(gradient, tensor.backend)
            found.append(gradient)
        return found


def _tensor_type() -> type[Tensor]:
    from trine.tensor import Tensor  # noqa: PLC0415  tensors are defined on this module

    return Tensor


def add_to_grad(tensor: Tensor, gradient: Tensor) -> None:
    """Add to tensor.grad what is no part of a graph, as `backward` adds a leaf's gradient."""
    _accumulate(tensor, gradient.detach().data, create_graph=False)


def _accumulate(tensor: Tensor, gradient: Any, create_graph: bool, owned: bool = False) -> None:
    """Add to tensor.grad: into the optimiser's flat buffer where there is one."""
    backend, view = tensor.backend, tensor._grad_view
    if create_graph:
        tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient
        return
    if tensor.grad is not None:
        backend.accumulate(tensor.grad.data, gradient)
    elif view is not None:
        backend.assign(view, gradient)
        tensor.grad = tensor._wrap(view, backend)
    else:
        array: Array = gradient if owned else backend.copy(gradient)
        tensor.grad = _tensor_type()._wrap(array, backend)
