"""Training steps in torch, from weights that trine drew: the loop that users write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn, optim

from trine.bench.models import Model

WARM_STEPS = 3
"""Before a capture, as PyTorch's manual wants."""


def make_train(
    model: Model, batch: int, weights: dict[str, Any] | None, seed: int, device: str = "cpu",
    how: str = "eager", dtype: torch.dtype = torch.float32, autocast: torch.dtype | None = None,
) -> Callable[[], Any]:  # fmt: skip
    """Return what does a training step of a model; it waits for nothing and returns the loss.

    how: "eager"; "channels_last", images and filters in that layout; "compile", forward and loss
    through torch.compile with its CUDA graphs; "graph", the whole step captured. Without weights
    those are torch's own. With `autocast` forward and loss run under torch.autocast in that type.
    """
    layout = torch.channels_last if how == "channels_last" else torch.preserve_format
    x, y = (torch.from_numpy(a).to(device) for a in model.draw(np.random.default_rng(seed), batch))
    x = x.to(dtype=dtype, memory_format=layout if x.ndim == 4 else torch.preserve_format)
    y = y.to(dtype) if y.dtype.is_floating_point else y
    network = model.build(nn)
    if weights is not None:
        network.load_state_dict({k: torch.from_numpy(w.copy()) for k, w in weights.items()})
    network.to(device=device, dtype=dtype)
    if how == "channels_last":
        network.to(memory_format=torch.channels_last)
    optimizer = model.optimizer(optim, network.parameters())

    def plain(x: Any, y: Any) -> Any:
        return model.loss(F, network, x, y)

    def casting(x: Any, y: Any) -> Any:
        with torch.autocast(device, autocast):
            return model.loss(F, network, x, y)

    forward = plain if autocast is None else casting
    if how == "compile":
        torch.compiler.reset()  # it gives up, without a word, on code compiled eight times before
        forward = torch.compile(forward, mode="reduce-overhead")
    if how == "graph":
        for group in optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = True

    def step() -> Any:
        if how == "compile":
            torch.compiler.cudagraph_mark_step_begin()
        optimizer.zero_grad()
        loss = forward(x, y)
        loss.backward()
        optimizer.step()
        return loss

    return _graphed(step) if how == "graph" else step


def _graphed(step: Callable[[], Any]) -> Callable[[], Any]:
    """Return a step that is warmed up, then captured, then replayed."""
    side = torch.cuda.Stream()
    state: dict[str, Any] = {}

    def run() -> Any:
        done = state.setdefault("done", 0)
        state["done"] = done + 1
        if done < WARM_STEPS:
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                loss = step()
            torch.cuda.current_stream().wait_stream(side)
            return loss.detach().clone()
        if done == WARM_STEPS:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                state["loss"] = step()
            state["graph"] = graph
        state["graph"].replay()
        return state["loss"]

    return run


def make_step(
    model: Model, batch: int, weights: dict[str, Any] | None, seed: int
) -> Callable[[], float]:
    """Return a training step of a model on the CPU, done to its end."""
    train = make_train(model, batch, weights, seed)
    return lambda: float(train().item())
