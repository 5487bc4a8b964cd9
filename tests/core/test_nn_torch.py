"""Peers: weights written by PyTorch, and its values. Skipped where torch is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trine
from trine import Tensor, nn, optim

torch: Any = pytest.importorskip("torch")


def lenet(library: Any) -> Any:
    return library.Sequential(
        library.Conv2d(1, 6, 5, padding=2),
        library.ReLU(),
        library.MaxPool2d(2),
        library.Conv2d(6, 16, 5),
        library.ReLU(),
        library.MaxPool2d(2),
        library.Flatten(),
        library.Linear(400, 120),
        library.ReLU(),
        library.Linear(120, 84),
        library.ReLU(),
        library.Linear(84, 10),
    )


def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, 1, 28, 28)).astype(np.float32)


def test_lenet_weights_of_pytorch_give_its_logits(backend_name: str, tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    torch.manual_seed(0)
    theirs, ours = lenet(torch.nn), lenet(nn)
    save_file(theirs.state_dict(), tmp_path / "lenet.safetensors")
    ours.load_state_dict(nn.load_file(tmp_path / "lenet.safetensors"))
    x = images()
    wanted = theirs(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(ours(trine.tensor(x)).detach().numpy(), wanted, atol=1e-5)
    assert repr(ours) == repr(theirs)


def tensors(found: Any) -> list[Any]:
    """Return (output, h_n) or (output, (h_n, c_n)) as a flat list."""
    output, states = found
    return [output, *states] if isinstance(states, tuple) else [output, states]


KINDS = [("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("GRU", {}), ("LSTM", {})]
STACKS = [
    {},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"num_layers": 2, "bias": False},
]


@pytest.mark.parametrize(("name", "kind"), KINDS)
@pytest.mark.parametrize("options", STACKS)
@pytest.mark.parametrize("lengths", [None, [2, 7, 1, 5]])
def test_recurrent_layers_are_pytorchs(
    backend_name: str, name: str, kind: Any, options: Any, lengths: Any
) -> None:
    """Outputs, last states and all gradients from one state_dict; ragged as packed sequences."""
    theirs = getattr(torch.nn, name)(3, 5, **kind, **options).double()
    ours = getattr(nn, name)(3, 5, **kind, **options, dtype="float64")
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    first = options.get("batch_first", False)
    depth = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 7, 3) if first else (7, 4, 3))
    starts = [rng.normal(size=(depth, 4, 5)) for _ in range(1 + (name == "LSTM"))]
    mine = [trine.tensor(a).requires_grad_() for a in (x, *starts)]
    yours = [torch.from_numpy(a.copy()).requires_grad_() for a in (x, *starts)]
    got = tensors(ours(mine[0], tuple(mine[1:]) if name == "LSTM" else mine[1], lengths=lengths))
    hx = tuple(yours[1:]) if name == "LSTM" else yours[1]
    if lengths is None:
        wanted = tensors(theirs(yours[0], hx))
    else:
        rnn = torch.nn.utils.rnn
        packed = rnn.pack_padded_sequence(yours[0], lengths, first, enforce_sorted=False)
        output, states = theirs(packed, hx)
        padded, _ = rnn.pad_packed_sequence(output, first)
        wanted = tensors((padded, states))
    weights = [rng.normal(size=a.shape) for a in wanted]
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=0, atol=1e-12)
    sum((a * trine.tensor(w)).sum() for a, w in zip(got, weights, strict=True)).backward()
    sum((b * torch.from_numpy(w)).sum() for b, w in zip(wanted, weights, strict=True)).backward()
    for a, b in zip(mine, yours, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=0, atol=1e-11)
    for (key, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-11, err_msg=key)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("RNNCell", {}), ("RNNCell", {"nonlinearity": "relu"}), ("GRUCell", {}), ("LSTMCell", {})],
)
@pytest.mark.parametrize("shape", [(4, 3), (3,)])
def test_recurrent_cells_are_pytorchs(
    backend_name: str, name: str, kind: Any, shape: tuple[int, ...]
) -> None:
    theirs = getattr(torch.nn, name)(3, 5, **kind).double()
    ours = getattr(nn, name)(3, 5, **kind, dtype="float64")
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    rng = np.random.default_rng(0)
    x, h, c = (rng.normal(size=(*shape[:-1], size)) for size in (3, 5, 5))
    for start in (None, (h, c) if name == "LSTMCell" else h):
        pair = isinstance(start, tuple)
        mine = tuple(map(trine.tensor, start)) if pair else start
        yours = tuple(map(torch.from_numpy, start)) if pair else start
        if start is not None and not pair:
            mine, yours = trine.tensor(start), torch.from_numpy(start)
        got, wanted = ours(trine.tensor(x), mine), theirs(torch.from_numpy(x), yours)
        got, wanted = (a if isinstance(a, tuple) else (a,) for a in (got, wanted))
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), atol=1e-13)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01}),
        ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        ("Adam", {"weight_decay": 0.01}),
        ("AdamW", {}),
        ("RMSprop", {"momentum": 0.9, "centered": True}),
        ("Adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.5}),
    ],
)
def test_optimisers_step_like_pytorchs(backend_name: str, name: str, options: Any) -> None:
    start = np.random.default_rng(0).normal(size=(5, 3))
    ours = nn.Parameter(trine.tensor(start))
    theirs = torch.nn.Parameter(torch.from_numpy(start.copy()))
    opt = getattr(optim, name)([ours], **options)
    peer = getattr(torch.optim, name)([theirs], **options)
    for _ in range(6):
        for parameter, optimizer in ((ours, opt), (theirs, peer)):
            optimizer.zero_grad()
            (parameter**4).sum().backward()
            optimizer.step()
    assert isinstance(ours, Tensor)
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-10)


def test_schedules_have_pytorchs_values() -> None:
    def peer(make: Any) -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)
        schedule, rates = make(optimizer), []
        for _ in range(12):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return rates

    rates = torch.optim.lr_scheduler

    def chain(optimizer: Any) -> Any:
        parts = [
            rates.LinearLR(optimizer, total_iters=4),
            rates.CosineAnnealingLR(optimizer, 8, 0.1),
        ]
        return rates.SequentialLR(optimizer, parts, [4])

    for ours, theirs in (
        (optim.StepLR(0.5, 3, 0.2), lambda o: rates.StepLR(o, 3, 0.2)),
        (optim.CosineAnnealingLR(0.5, 8, 0.1), lambda o: rates.CosineAnnealingLR(o, 8, 0.1)),
        (optim.LinearWarmup(0.5, 4), lambda o: rates.LinearLR(o, total_iters=4)),
        (optim.WarmupCosine(0.5, 4, 12, 0.1), chain),
    ):
        np.testing.assert_allclose([ours.lr_at(t) for t in range(12)], peer(theirs), rtol=1e-12)
