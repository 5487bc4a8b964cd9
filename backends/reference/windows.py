"""Where windows lie: how many fit along an axis, and what each of their elements meets.

Convolution and pooling slide a window of R x S elements over images; stride (a, b), dilation (e, f).
Element (r, s) of all windows together meets the slice [er :: a, fs :: b] of the padded input.
"""

from __future__ import annotations

from collections.abc import Iterator

Pair = tuple[int, int]


def output_size(
    size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool = False
) -> int:
    """Return how many windows fit along an axis: floor((H + 2p - e(R-1) - 1)/a) + 1.

    With `ceil_mode` the quotient is rounded up, so that a last window may reach past the end, if it
    starts inside the input or its padding in front (PyTorch's rule).
    """
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (-(-span // stride) if ceil_mode else span // stride) + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1
    return count


def output_sizes(
    size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool = False
) -> Pair:
    """Return `output_size` along the height and along the width."""
    p, q = (
        output_size(size[i], kernel[i], stride[i], padding[i], dilation[i], ceil_mode)
        for i in (0, 1)
    )
    return p, q


def elements(
    kernel: Pair, out: Pair, stride: Pair, dilation: Pair
) -> Iterator[tuple[int, int, slice, slice]]:
    """Yield r, s and the rows and columns of the padded input that element (r, s) meets."""
    for r in range(kernel[0]):
        for s in range(kernel[1]):
            top, left = r * dilation[0], s * dilation[1]
            rows = slice(top, top + (out[0] - 1) * stride[0] + 1, stride[0])
            columns = slice(left, left + (out[1] - 1) * stride[1] + 1, stride[1])
            yield r, s, rows, columns
