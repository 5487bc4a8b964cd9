"""PyTorch on the same device, at the same precision, in both layouts."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from trine.backends.cases import Sample
from trine.bench.gpu.session import Session
from trine.bench.peers import PeerCall
from trine.errors import BackendError

AUTOCAST = frozenset({"matmul", "linear", "conv2d", "conv_transpose2d", "rnn", "lstm", "gru"})
"""Ops that `torch.autocast` casts; gradients get what these were given."""
COMPILED = frozenset(
    {"relu", "exp", "add", "bias_act", "softmax", "log_softmax", "layer_norm", "cross_entropy"}
)
"""Ops for which PyTorch's compiler may do better than its own kernels; it takes seconds for each."""


def load(session: Session, wanted: bool) -> Any:
    """Return the module torch, at float32 throughout; None if it is not wanted, or dry and absent.

    Raises BackendError if it is wanted and cannot use the GPU.
    """
    if not wanted:
        session.note("Without PyTorch, as asked.")
        return None
    if importlib.util.find_spec("torch") is None:
        if session.dry_run:
            session.note("PyTorch is not installed: the dry run has no peer.")
            return None
        raise BackendError(
            f"[{session.name}] expected PyTorch beside Trine, found none. pip install torch, or pass "
            "--without-torch."
        )
    torch = importlib.import_module("torch")
    if not session.dry_run and not torch.cuda.is_available():
        raise BackendError(
            f"[{session.name}] expected a PyTorch that sees the GPU, got {torch.__version__}. Install "
            "its CUDA build, or pass --without-torch."
        )
    _allow_tf32(torch, False)
    torch.backends.cudnn.benchmark = True
    return torch


def _allow_tf32(torch: Any, allowed: bool) -> None:
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed  # convolutions and recurrent nets


@contextmanager
def at(torch: Any, precision: str) -> Iterator[None]:
    """Let PyTorch round the factors of float32's products to TF32 inside the block, if that is asked."""
    if torch is None:
        yield
        return
    _allow_tf32(torch, precision == "tf32")
    try:
        yield
    finally:
        _allow_tf32(torch, False)


def place(session: Session) -> str:
    """Return the device of PyTorch's tensors."""
    return "cpu" if session.dry_run else "cuda"


def calls(
    session: Session, torch: Any, op: str, sample: Sample, precision: str = "fp32"
) -> dict[str, PeerCall]:
    """Return PyTorch's calls of an op by how they are made; none if it has no such op.

    In bf16 the operands are bfloat16; beside them stands, where it casts, `torch.autocast` with
    operands of float32, as ours has them. TF32 is a matter of the block of `at` that they run in.
    """
    if torch is None:
        return {}
    from trine.bench.peers import torch_calls, torch_peer  # noqa: PLC0415  torch is there

    found: dict[str, PeerCall] = {}

    def build(name: str, channels_last: bool, floats: Any) -> None:
        with (
            torch.device(place(session)),
            torch_calls.operands(channels_last=channels_last, floats=floats),
        ):
            built = torch_peer.PEER.build(op, sample)
        if built is not None:
            found[name] = built

    floats = torch.bfloat16 if precision == "bf16" else None
    build("torch", False, floats)
    if any(a is not None and a.ndim == 4 for a in sample.args):
        build("torch channels_last", True, floats)
    if precision == "bf16" and op in AUTOCAST:
        build("torch autocast", False, None)
        if "torch autocast" in found:
            found["torch autocast"] = _autocast(session, torch, found["torch autocast"])
    if "torch" in found and op in COMPILED and not session.dry_run:
        torch.compiler.reset()  # it gives up, without a word, on code compiled eight times before
        compiled: Callable[[], Any] = torch.compile(found["torch"].call)
        found["torch compile"] = PeerCall(compiled, found["torch"].outputs)
    return found


def _autocast(session: Session, torch: Any, plain: PeerCall) -> PeerCall:
    def call() -> Any:
        with torch.autocast(place(session), torch.bfloat16):
            return plain.call()

    return PeerCall(call, plain.outputs)


@contextmanager
def released(torch: Any) -> Iterator[None]:
    """Give PyTorch's unused memory back afterwards: both libraries keep what they had."""
    try:
        yield
    finally:
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()
