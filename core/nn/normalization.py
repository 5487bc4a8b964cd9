"""Normalisation layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy.typing as npt

import trine.functional as F
from trine.backends import Backend
from trine.creation import ones, zeros
from trine.dtypes import as_dtype, int64
from trine.nn import init
from trine.nn.checks import require_positive
from trine.nn.module import Module
from trine.nn.parameter import Parameter, new_parameter
from trine.tensor import Tensor


class _Affine(Module):
    """A weight that starts as ones and a bias that starts as zeros, either of them optional."""

    weight: Parameter | None
    bias: Parameter | None

    def _affine(
        self,
        shape: tuple[int, ...],
        weight: bool,
        bias: bool,
        dtype: npt.DTypeLike | None,
        backend: str | Backend | None,
    ) -> None:
        for name, wanted in (("weight", weight), ("bias", bias)):
            parameter = new_parameter(shape, dtype=dtype, backend=backend) if wanted else None
            self.register_parameter(name, parameter)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weight to ones and the bias to zeros."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)


class _BatchNorm(_Affine):
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    ranks: tuple[int, ...]
    expected: str

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        dtype: npt.DTypeLike | None = None,
        backend: str | Backend | None = None,
    ) -> None:
        super().__init__()
        require_positive(type(self).__name__, num_features=num_features)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self._affine((num_features,), affine, affine, dtype, backend)
        kind, tracked = as_dtype(dtype), track_running_stats
        self.register_buffer(
            "running_mean", zeros(num_features, dtype=kind, backend=backend) if tracked else None
        )
        self.register_buffer(
            "running_var", ones(num_features, dtype=kind, backend=backend) if tracked else None
        )
        self.register_buffer(
            "num_batches_tracked", zeros((), dtype=int64, backend=backend) if tracked else None
        )

    def reset_running_stats(self) -> None:
        """Forget the running mean and variance."""
        if self.running_mean is None or self.running_var is None:
            return
        init.zeros_(self.running_mean)
        init.ones_(self.running_var)
        assert self.num_batches_tracked is not None
        init.zeros_(self.num_batches_tracked)

    def _momentum(self) -> float:
        """Return the weight of the new batch; without `momentum`, that of a plain average."""
        if self.num_batches_tracked is None:
            return 0.0 if self.momentum is None else self.momentum
        count = self.num_batches_tracked
        count.backend.accumulate(count.data, count.backend.full((), 1, int64))
        count._bump()
        return 1.0 / count.item() if self.momentum is None else self.momentum

    def forward(self, input: Tensor) -> Tensor:
        """Normalise over the batch in training, by the running statistics in evaluation."""
        if input.ndim not in self.ranks:
            raise ValueError(
                f"[{type(self).__name__}] expected input {self.expected}, got shape {input.shape}. "
                "Reshape it, or use the other BatchNorm."
            )
        use_batch = self.training or self.running_mean is None
        momentum = self._momentum() if self.training else 0.0
        return F.batch_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            use_batch,
            momentum,
            self.eps,
        )

    def extra_repr(self) -> str:
        """Size, eps, momentum and what is learned or tracked."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L) (Ioffe and Szegedy, 2015); PyTorch's defaults.

    y = (x - mean) / sqrt(var + eps) weight + bias for each channel; running statistics
    r += momentum (batch - r), with the unbiased variance, serve in evaluation.
    """

    ranks = (2, 3)
    expected = "(N, C) or (N, C, L)"


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of (N, C, H, W) (Ioffe and Szegedy, 2015); PyTorch's defaults.

    y = (x - mean) / sqrt(var + eps) weight + bias for each channel; running statistics
    r += momentum (batch - r), with the unbiased variance, serve in evaluation.
    """

    ranks = (4,)
    expected = "(N, C, H, W)"


class LayerNorm(_Affine):
    """y = (x - mean) / sqrt(var + eps) weight + bias over the last axes (Ba et al., 2016)."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: npt.DTypeLike | None = None,
        backend: str | Backend | None = None,
    ) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
        self.normalized_shape = tuple(int(size) for size in shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        wanted = elementwise_affine
        self._affine(self.normalized_shape, wanted, wanted and bias, dtype, backend)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise the last axes."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The normalised shape and eps."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )


class GroupNorm(_Affine):
    """y = (x - mean) / sqrt(var + eps) weight + bias over groups of channels (Wu and He, 2018)."""

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        dtype: npt.DTypeLike | None = None,
        backend: str | Backend | None = None,
    ) -> None:
        super().__init__()
        require_positive("GroupNorm", num_groups=num_groups, num_channels=num_channels)
        if num_channels % num_groups:
            raise ValueError(
                f"[GroupNorm] expected channels that {num_groups} groups divide, got {num_channels}. "
                "Change one of them."
            )
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.affine = affine
        self._affine((num_channels,), affine, affine, dtype, backend)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each group of channels of (N, C, ...)."""
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Groups, channels and eps."""
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


class LocalResponseNorm(Module):
    """y_c = x_c / (k + alpha / size sum_j x_j^2)^beta over `size` channels around c.

    Source: Krizhevsky, Sutskever and Hinton, 2012; PyTorch's formula and defaults.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        require_positive("LocalResponseNorm", size=size)
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, ...) across its channels."""
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        """The window and the formula's constants."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
