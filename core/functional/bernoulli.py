"""Random bits with given probabilities."""

from __future__ import annotations

from trine.dtypes import Array, float32
from trine.functional.checks import device_key, require_float
from trine.tensor import Tensor


def bernoulli(input: Tensor, key: Array | None = None) -> Tensor:
    """Draw 1 with probability p and 0 else, for each element p of the input; outside the graph.

    Element i, counted in row-major order, is 1 where the i-th float32 uniform of the Philox draw
    `key` is below p: the same on every backend. So p <= 0 gives 0 always, p >= 1 gives 1, and NaN
    gives 0. key: uint32 (5,), see `trine.random.make_key`; without one the default generator gives
    its next. The result has the input's shape and dtype. Raises ValueError for another key,
    TypeError for integers.
    """
    require_float("bernoulli", "input", input)
    on_device = device_key("bernoulli", input, key)
    backend = input.backend
    uniform = backend.random_uniform(on_device, shape=input.shape, dtype=float32)
    return (Tensor._wrap(uniform, backend) < input.detach()).astype(input.dtype)
