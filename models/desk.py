"""The desk on which examples are worked: tensors of one backend and dtype, costs, made data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn, optim
from trine.data import ArrayDataset, DataLoader, Splits
from trine.models.figures import Plane
from trine.random import make_key, normal, permutation, stream_id
from trine.training import Trainer

LICENCE = "made by a rule stated in Trine's source; no licence needed"


class Desk:
    """Makes tensors and models of one backend and dtype."""

    def __init__(self, backend: str, dtype: str) -> None:
        self.backend = backend
        self.dtype = dtype

    def tensor(self, data: Any, *, grad: bool = False) -> trine.Tensor:
        """Return a tensor of the desk's dtype on its backend; `grad` asks for its gradient."""
        array = np.asarray(data, dtype=np.float64)
        return trine.tensor(array, dtype=self.dtype, requires_grad=grad, backend=self.backend)

    def integers(self, data: Any) -> trine.Tensor:
        """Return an int64 tensor on the desk's backend."""
        return trine.tensor(np.asarray(data), dtype="int64", backend=self.backend)

    def given(self, data: Any) -> trine.Tensor:
        """Return samples or targets: real numbers in the desk's dtype, whole ones as int64."""
        return self.tensor(data) if np.asarray(data).dtype.kind == "f" else self.integers(data)

    @classmethod
    def of(cls, module: nn.Module) -> Desk:
        """Return the desk on which a model stands."""
        parameter = next(iter(module.parameters()))
        return cls(parameter.backend.name, parameter.dtype.name)

    def place(self, module: nn.Module) -> nn.Module:
        """Move a model to the desk's backend and dtype, and return it."""
        return module.to(self.backend, dtype=self.dtype)


def values(tensor: trine.Tensor | None) -> npt.NDArray[np.float64]:
    """Return a tensor's elements as a float64 NumPy array."""
    assert tensor is not None
    return np.array(tensor.detach().numpy(), dtype=np.float64)


def set_parameters(module: nn.Module, **arrays: Any) -> None:
    """Give named parameters ("hidden_weight" for `hidden.weight`) the values of arrays."""
    state = {name: np.asarray(values(value)) for name, value in module.state_dict().items()}
    for name, array in arrays.items():
        key = name.replace("__", ".")
        state[key] = np.asarray(array, dtype=np.float64).reshape(state[key].shape)
    module.load_state_dict(state)


def start_for_relu_(module: nn.Module) -> None:
    """Start a layer as He et al. (2015) have it for ReLU; for `Module.apply`.

    From PyTorch's start each layer hands on a third of its input's power, and a deep net without
    normalisation learns nothing for several epochs.
    """
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def draw_normal(purpose: str, shape: tuple[int, ...], seed: int = 0) -> npt.NDArray[np.float64]:
    """Return standard normals that depend on the purpose and the seed alone."""
    return np.asarray(normal(make_key(seed, stream_id(purpose)), shape, "float64"))


def draw_order(purpose: str, n: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return a permutation of 0..n-1 that depends on the purpose and the seed alone."""
    return permutation(make_key(seed, stream_id(purpose)), n)


def half_squared_error(output: trine.Tensor, target: trine.Tensor) -> trine.Tensor:
    """Return C = 1/n sum_i 1/2 sum_j (t_ij - a_ij)^2 of outputs (n, ...) and their targets.

    Targets are of the outputs' shape, or classes (n,), which stand for one-hot rows. Descent by
    the sum over the batch, as sources 000 and 004 have it, is descent by this mean with a rate n
    times as large.  Raises ValueError where the shapes do not fit.
    """
    if target.ndim == 1 and output.ndim == 2:
        target = one_hot(target, output.shape[1], output)
    return F.squared_error(output, target, reduction="batchmean")


def one_hot(classes: trine.Tensor, count: int, like: trine.Tensor) -> trine.Tensor:
    """Return classes (n,) as rows (n, count) with a single 1, in the dtype of another tensor."""
    return trine.eye(count, dtype=like.dtype, backend=like.backend)[classes]


def made_splits(
    name: str,
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    *,
    train: int,
    description: str,
    num_classes: int | None = None,
) -> Splits:
    """Return made examples as a training set of the first `train` and a test set of the rest.

    With `num_classes` the targets are classes, which are checked to be below it.
    """
    return Splits(
        name=name,
        train=ArrayDataset(x[:train], y[:train], num_classes, name),
        test=ArrayDataset(x[train:], y[train:], num_classes, name),
        num_classes=num_classes,
        description=description,
        licence=LICENCE,
    )


def flipped(template: npt.NDArray[np.float32], cells: Sequence[int]) -> npt.NDArray[np.float32]:
    """Return a copy of a binary image in which the given cells (row-major) are inverted."""
    image = template.copy()
    for cell in cells:
        image.flat[cell] = 1.0 - image.flat[cell]
    return image


def own_targets(splits: Splits) -> Splits:
    """Return a data set whose samples are their own targets, as an autoencoder learns them."""
    parts = [ArrayDataset(part.x, part.x, name=part.name) for part in (splits.train, splits.test)]
    return replace(splits, train=parts[0], test=parts[1], num_classes=None)


def run_over(
    function: Callable[[trine.Tensor], trine.Tensor],
    desk: Desk,
    x: npt.NDArray[Any],
    size: int = 256,
) -> npt.NDArray[np.float64]:
    """Return what a function of tensors makes of samples, batch by batch, without gradients."""
    with trine.no_grad():
        parts = [values(function(desk.tensor(x[i : i + size]))) for i in range(0, len(x), size)]
    return np.concatenate(parts)


def over_square(
    function: Callable[[trine.Tensor], trine.Tensor],
    desk: Desk,
    title: str,
    sides: tuple[float, float],
    points: int,
    groups: Mapping[str, npt.NDArray[Any]],
    level: float = 0.5,
) -> Plane:
    """Return what a function of two inputs, (n, 2) -> n numbers, makes of points x points in a square.

    `groups` are drawn upon it; `level` is where its border runs.
    """
    along = np.linspace(*sides, points)
    grid = np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2)
    z = run_over(function, desk, grid, 4096).reshape(points, points)
    return Plane(title, z, (*sides, *sides), groups, level)


def fit(
    model: nn.Module,
    data: ArrayDataset,
    loss: Callable[..., trine.Tensor],
    *,
    epochs: int,
    lr: float = 0.01,
    optimizer: optim.Optimizer | None = None,
    clip_norm: float | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> None:
    """Train a model that is a means to an end: a layer of a stack, a rival, a judge.

    By Adam, whose rate falls from `lr` to 0 along a cosine, or as an optimiser that is given has
    it; no epochs leave the model as it is. It is in evaluation mode afterwards. Raises
    KeyboardInterrupt where a signal stopped it: what it was trained for has no use for half of it.
    """
    loader = DataLoader(data, batch_size, shuffle=True, seed=seed, prefetch=0)
    schedule = None
    if optimizer is None:
        optimizer = optim.Adam(model.parameters(), lr=lr)
        schedule = optim.CosineAnnealingLR(optimizer, max(epochs * len(loader), 1))
    trainer = Trainer(
        model, optimizer, loss, metrics=(), schedule=schedule, clip_norm=clip_norm, progress="none"
    )
    if epochs and trainer.fit(loader, epochs=epochs).interrupted:
        raise KeyboardInterrupt
    model.eval()
