"""The formula of each op of an anatomy, and the same formula with one sample's numbers put in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from trine.models.anatomy import Part

Array = npt.NDArray[Any]

TERMS = 8
"""A sum is written out up to so many terms, and so many of its units."""
WINDOWS = 4
"""Windows that are written out of a layer with more than SMALL of them: some from its middle."""
SMALL = 64
PRODUCTS = 25
"""Products of a window that are written out."""

ACTS = {
    "sigmoid": ("s({z}) = 1 / (1 + exp(-{z}))", "{a} (1 - {a})"),
    "tanh": ("tanh {z}", "1 - {a}^2"),
    "relu": ("max(0, {z})", "1 where {z} > 0, else 0"),
}
SLOPES: dict[str, Callable[[Array], Array]] = {
    "sigmoid": lambda a: a * (1.0 - a),
    "tanh": lambda a: 1.0 - a * a,
    "relu": lambda a: (a > 0).astype(a.dtype),
}
"""act'(z) from a = act(z)."""

PRIMITIVES = {
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} (.) {1}", "div": "{0} / {1}",
    "pow": "{0}^{1}", "neg": "-{0}", "exp": "exp({0})", "log": "log({0})", "sum": "sum of {0}",
    "matmul": "{0} {1}", "softmax": "exp({0}) / sum exp({0})",
    "log_softmax": "{0} - log sum exp({0})", "flatten": "{0} as one row", "dropout": "{0}",
}  # fmt: skip


def number(value: float) -> str:
    """Return a number as it is written into formulas: six significant digits."""
    return f"{float(value) + 0.0:.6g}"  # no minus before a zero


def signed(value: float) -> str:
    """Return a number as a factor: in brackets if it is negative."""
    text = number(value)
    return f"({text})" if text.startswith("-") else text


def sum_of_products(factors: Array, others: Array, shown: int = TERMS) -> str:
    """Return a sum of products with numbers: the first ones, and how many there are more."""
    pairs = list(zip(factors.ravel(), others.ravel(), strict=True))
    terms = [f"{signed(a)}·{signed(b)}" for a, b in pairs[:shown]]
    left = len(pairs) - len(terms)
    return " + ".join(terms) + (f" + ({left} more)" if left else "")


def formula(part: Part) -> str:
    """Return what the op computes, in the symbols of its layer."""
    names = [operand.symbol for operand in part.inputs]
    if part.op in FORMULAS:
        return f"{part.symbol}{FORMULAS[part.op](part, names)}"
    if part.op in ACTS:
        return f"{part.symbol} = " + ACTS[part.op][0].format(z=names[0])
    text = PRIMITIVES.get(part.op, "")
    if text and len(names) > text.count("{1}"):
        return f"{part.symbol} = " + text.format(*names)
    return f"{part.symbol} = {part.op}({', '.join(names)})"


def _linear_formula(part: Part, names: list[str]) -> str:
    z = f"{names[1]} {names[0]}" + (f" + {names[2]}" if len(names) > 2 else "")
    act = part.attrs.get("activation", "none")
    return f" = {z}" if act == "none" else f" = {act}({z})"


def _conv2d_formula(part: Part, names: list[str]) -> str:
    bias = f" + {names[2]}[k]" if len(names) > 2 else ""
    stride, padding = part.attrs.get("stride", (1, 1)), part.attrs.get("padding", (0, 0))
    i, j = (
        (f"{s} {index}" if s > 1 else index) + (f"-{p}" if p else "")
        for s, index, p in zip(stride, "ij", padding, strict=True)
    )
    return f"[k,i,j] = sum over c,r,s of {names[1]}[k,c,r,s] {names[0]}[c,{i}+r,{j}+s]{bias}"


def _projected(part: Part, kind: str) -> str:
    """Return W_ih x_t + b_ih, or with `hh` W_hh h_(t-1) + b_hh, in the symbols of a recurrent layer."""
    names = {operand.role: operand.symbol for operand in part.inputs}
    value = f"{part.inputs[0].symbol}_t" if kind == "ih" else "h_(t-1)"
    bias = names.get(f"b_{kind}")
    return f"{names[f'W_{kind}']} {value}" + (f" + {bias}" if bias else "")


def _gate_input(part: Part) -> str:
    return f"{_projected(part, 'ih')} + {_projected(part, 'hh')}"


FORMULAS: dict[str, Callable[[Part, list[str]], str]] = {
    "linear": _linear_formula,
    "conv2d": _conv2d_formula,
    "max_pool2d": lambda _, n: f" = the largest {n[0]} of each window (ties: the first)",
    "avg_pool2d": lambda _, n: f" = the mean {n[0]} of each window",
    "adaptive_avg_pool2d": lambda _, n: f" = the mean {n[0]} of each window",
    "rnn": lambda part, _: f": h_t = {part.attrs.get('nonlinearity', 'tanh')}({_gate_input(part)})",
    "gru": lambda part, _: (
        f": r, z = s({_gate_input(part)});  n = tanh({_projected(part, 'ih')} + r (.) m),  "
        f"m = {_projected(part, 'hh')}, each on its rows of the weights;  "
        "h_t = (1 - z) (.) n + z (.) h_(t-1)"
    ),
    "lstm": lambda part, _: (
        f": i, f, o = s(z), g = tanh z, each on its rows of z = {_gate_input(part)};  "
        "c_t = f (.) c_(t-1) + i (.) g;  h_t = o (.) tanh c_t"
    ),
    "cross_entropy": lambda _, n: f" = -log( exp {n[0]}[t] / sum exp {n[0]} )",
}
"""What follows the symbol of the output."""


def backward_formulas(part: Part) -> list[str]:
    """Return how the error passes through the op and what it leaves in the parameters."""
    names = [operand.symbol for operand in part.inputs]
    if part.op in ACTS:
        slope = ACTS[part.op][1].format(z=names[0], a=part.symbol)
        return [f"dC/d{names[0]} = dC/d{part.symbol} (.) act'({names[0]}),  act' = {slope}"]
    lines = BACKWARD.get(part.op, ())
    shown = [line for line in lines if len(names) > 2 or "{2}" not in line]
    roles = {operand.role: operand.symbol for operand in part.inputs if operand.role}
    return [line.format(*names, *[""] * 3, y=part.symbol, **roles) for line in shown]


BACKWARD: dict[str, tuple[str, ...]] = {
    "linear": (
        "dC/d{1} = delta {0}^T  with delta = dC/d{y}   (BP3)",
        "dC/d{2} = delta   (BP4)",
        "dC/d{0} = {1}^T delta   (BP2)",
    ),
    "conv2d": (
        "dC/d{1}[k,c,r,s] = sum over i,j of delta[k,i,j] {0}[c,i+r,j+s]  with delta = dC/d{y}",
        "dC/d{2}[k] = sum of delta[k]",
        "dC/d{0} = delta, padded, convolved with {1} turned by 180 degrees",
    ),
    "max_pool2d": ("dC/d{0} = dC/d{y} at the winner of each window, 0 elsewhere",),
    "avg_pool2d": ("dC/d{0} = dC/d{y}, shared evenly by the window",),
    "adaptive_avg_pool2d": ("dC/d{0} = dC/d{y}, shared evenly by the window",),
    "rnn": (
        "dh_t = dC/d{y}_t + {W_hh}^T dz_(t+1);  dz_t = dh_t (.) act'(z_t)",
        "dC/d{W_ih} = sum over t of dz_t {0}_t^T;  dC/d{W_hh} = sum over t of dz_t h_(t-1)^T",
        "dC/d{0}_t = {W_ih}^T dz_t",
    ),
    "gru": (
        "dz_n = dh (.) (1 - z) (.) (1 - n^2);  dz_z = dh (.) (h_(t-1) - n) (.) z (1 - z);  "
        "dz_r = dz_n (.) m (.) r (1 - r)",
        "dh_(t-1) = dC/d{y}_(t-1) + z (.) dh + {W_hh}^T (dz_r, dz_z, r (.) dz_n)",
        "dC/d{W_ih} = sum over t of (dz_r, dz_z, dz_n) {0}_t^T;  "
        "dC/d{W_hh} = sum over t of (dz_r, dz_z, r (.) dz_n) h_(t-1)^T",
        "dC/d{0}_t = {W_ih}^T (dz_r, dz_z, dz_n)",
    ),
    "lstm": (
        "do = dh (.) tanh c;  dc = dc_(t+1) (.) f_(t+1) + dh (.) o (.) (1 - tanh^2 c);  "
        "df = dc (.) c_(t-1);  di = dc (.) g;  dg = dc (.) i;  each times act' gives dz",
        "dh_(t-1) = dC/d{y}_(t-1) + {W_hh}^T dz_t",
        "dC/d{W_ih} = sum over t of dz_t {0}_t^T;  dC/d{W_hh} = sum over t of dz_t h_(t-1)^T",
        "dC/d{0}_t = {W_ih}^T dz_t",
    ),
    "cross_entropy": ("dC/d{0} = softmax({0}) - 1 at t,  / batch   (BP1)",),
}


def slope(part: Part) -> Array | None:
    """Return act'(z) of an activation, also of one that is fused into its layer."""
    act = part.op if part.op in SLOPES else part.attrs.get("activation", "none")
    return SLOPES[act](part.output) if act in SLOPES else None


def worked(part: Part, sample: int = 0) -> list[str]:
    """Return the formula with one sample's numbers: whole for small layers, else its first units.

    The numbers are those that the backend computed; a line's right side is the output itself.
    """
    write = {
        "linear": _linear, "conv2d": _conv2d, "max_pool2d": _max_pool2d, "avg_pool2d": _avg_pool2d,
    }.get(part.op)  # fmt: skip
    if write is None and part.op in ACTS:
        write = _activation
    if write is None or part.output.ndim < 2 or not part.by_sample:
        return []
    return list(write(part, sample))


def _linear(part: Part, sample: int) -> Iterator[str]:
    x, weight = part.inputs[0].value, part.inputs[1].value
    if x.shape[-1] > TERMS:
        return
    x = x[sample]
    for j in range(min(len(weight), TERMS)):
        bias = f" + {signed(part.inputs[2].value[j])}" if len(part.inputs) > 2 else ""
        out = number(part.output[sample, j])
        yield f"{part.symbol}[{j + 1}] = {sum_of_products(weight[j], x)}{bias} = {out}"


def _activation(part: Part, sample: int) -> Iterator[str]:
    z, a = part.inputs[0].value[sample], part.output[sample]
    if a.size > TERMS:
        return
    shown, factor = ACTS[part.op]
    for j, (before, after) in enumerate(zip(z.ravel(), a.ravel(), strict=True), 1):
        value = shown.split(" = ")[-1].format(z=signed(before))
        line = f"{part.symbol}[{j}] = {value} = {number(after)}"
        slope = float(SLOPES[part.op](np.asarray(after)))
        middle = "" if part.op == "relu" else f"{factor.format(a=signed(after))} = "
        yield f"{line};  act' = {middle}{number(slope)}"


def shown_windows(maps: Array) -> list[tuple[int, int, int]]:
    """Return the (k, i, j) of maps (K, H, W) that are written out: all, or some in the middle."""
    if maps.size <= SMALL:
        return [(k, i, j) for k, i, j in np.ndindex(*maps.shape)]
    height, width = maps.shape[1:]
    first = max(0, (width - WINDOWS) // 2)
    return [(0, height // 2, j) for j in range(first, min(width, first + WINDOWS))]


def window(part: Part, sample: int, place: tuple[int, int, int]) -> Array:
    """Return the window (C, R, S) that a convolution weighs by W[k] for its output (k, i, j).

    Zeros stand where the window reaches into the padding.
    """
    x, weight = part.inputs[0].value[sample], part.inputs[1].value
    stride, padding = part.attrs.get("stride", (1, 1)), part.attrs.get("padding", (0, 0))
    dilation = part.attrs.get("dilation", (1, 1))
    filters, channels, rows, columns = weight.shape
    groups = x.shape[0] // channels
    padded = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2))
    k, i, j = place
    first = (k // (filters // groups)) * channels
    top, left = i * stride[0], j * stride[1]
    seen: Array = padded[
        first : first + channels,
        top : top + (rows - 1) * dilation[0] + 1 : dilation[0],
        left : left + (columns - 1) * dilation[1] + 1 : dilation[1],
    ]
    return seen


def _conv2d(part: Part, sample: int) -> Iterator[str]:
    bias = part.inputs[2].value if len(part.inputs) > 2 else None
    for k, i, j in shown_windows(part.output[sample]):
        seen = window(part, sample, (k, i, j))
        products = sum_of_products(part.inputs[1].value[k], seen, PRODUCTS)
        end = f" + {signed(bias[k])}" if bias is not None else ""
        value = number(part.output[sample, k, i, j])
        yield f"{part.symbol}[{k + 1},{i},{j}] = {products}{end} = {value}"


def winners(part: Part, sample: int) -> Array:
    """Return row and column of the winner of each window of a max pool, (C, H, W, 2)."""
    x = part.inputs[0].value[sample]
    size, stride = part.attrs["kernel_size"], part.attrs["stride"]
    padding, dilation = part.attrs.get("padding", (0, 0)), part.attrs.get("dilation", (1, 1))
    found = np.empty((*part.output.shape[1:], 2), dtype=np.int64)
    for c, i, j in np.ndindex(*part.output.shape[1:]):
        best = None
        for r, s in product(range(size[0]), range(size[1])):
            h = i * stride[0] - padding[0] + r * dilation[0]
            w = j * stride[1] - padding[1] + s * dilation[1]
            if 0 <= h < x.shape[1] and 0 <= w < x.shape[2]:
                value = x[c, h, w]
                if best is None or value > best:
                    best, found[c, i, j] = value, (h, w)
    return found


def _max_pool2d(part: Part, sample: int) -> Iterator[str]:
    where = winners(part, sample)
    for c, i, j in shown_windows(part.output[sample]):
        h, w = where[c, i, j]
        value = number(part.output[sample, c, i, j])
        yield f"{part.symbol}[{c + 1},{i},{j}] = {part.inputs[0].symbol}[{c + 1},{h},{w}] = {value}"


def _avg_pool2d(part: Part, sample: int) -> Iterator[str]:
    size, stride = part.attrs["kernel_size"], part.attrs["stride"]
    if part.attrs.get("padding", (0, 0)) != (0, 0) or part.attrs.get("ceil_mode"):
        return  # what a window at the border is divided by is another matter
    for c, i, j in shown_windows(part.output[sample]):
        top, left = i * stride[0], j * stride[1]
        seen = part.inputs[0].value[sample, c, top : top + size[0], left : left + size[1]]
        terms = " + ".join(map(signed, seen.ravel()[:PRODUCTS]))
        more = f" + ({seen.size - PRODUCTS} more)" if seen.size > PRODUCTS else ""
        value = number(part.output[sample, c, i, j])
        yield f"{part.symbol}[{c + 1},{i},{j}] = ({terms}{more}) / {seen.size} = {value}"
