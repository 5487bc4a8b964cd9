"""Probability densities."""

from __future__ import annotations

import math

from trine.functional.checks import require_float
from trine.tensor import Tensor


def normal_density(x: Tensor, mu: Tensor | float = 0.0, sigma: Tensor | float = 1.0) -> Tensor:
    """Density of the normal distribution with mean mu and standard deviation sigma.

    p(x) = exp(-(x - mu)^2 / (2 sigma^2)) / (sqrt(2 pi) sigma); it integrates to 1 for every sigma.
    x: any shape; mu, sigma: numbers, or tensors that broadcast. Raises ValueError for a number sigma
    that is not above 0 (a tensor is not read).
    """
    require_float("normal_density", "x", x)
    if not isinstance(sigma, Tensor) and not sigma > 0:
        raise ValueError(
            f"[normal_density] expected sigma > 0, got {sigma}. Pass the standard deviation."
        )
    z = (x - mu) / sigma
    return (z * z * -0.5).exp() / (sigma * math.sqrt(2 * math.pi))
