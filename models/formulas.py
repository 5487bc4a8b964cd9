"""The formula of each op of an anatomy, forward and backward, in the symbols of its layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from trine.models.anatomy import Part

ACTS = {
    "sigmoid": ("s({z}) = 1 / (1 + exp(-{z}))", "{a} (1 - {a})"),
    "tanh": ("tanh {z}", "1 - {a}^2"),
    "relu": ("max(0, {z})", "1 where {z} > 0, else 0"),
}
PRIMITIVES = {
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} (.) {1}", "div": "{0} / {1}",
    "pow": "{0}^{1}", "neg": "-{0}", "exp": "exp({0})", "log": "log({0})", "sum": "sum of {0}",
    "matmul": "{0} {1}", "softmax": "exp({0}) / sum exp({0})",
    "log_softmax": "{0} - log sum exp({0})", "flatten": "{0} as one row", "dropout": "{0}",
}  # fmt: skip


def number(value: float) -> str:
    """Return a number as it is written into formulas: six significant digits."""
    return f"{float(value) + 0.0:.6g}"  # no minus before a zero


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


def _normed(part: Part, moments: str) -> str:
    """Return gamma (x - mu) / sqrt(sigma^2 + eps) + beta in the symbols of a layer."""
    names = {operand.role: operand.symbol for operand in part.inputs}
    gamma = f"{names['gamma']} (.) " if "gamma" in names else ""
    beta = f" + {names['beta']}" if "beta" in names else ""
    x, eps = part.inputs[0].symbol, number(part.attrs["eps"])
    return f" = {gamma}({x} - mu) / (sigma^2 + {eps})^0.5{beta},  mu and sigma {moments}"


def smoothed(part: Part) -> tuple[float, float]:
    """Return what cross-entropy wants of the target's class and of each other: 1 - s + s/K and s/K."""
    s = part.attrs.get("label_smoothing", 0.0)
    other = s / part.inputs[0].value.shape[1]
    return 1.0 - s + other, other


def _cross_entropy_formula(part: Part, names: list[str]) -> str:
    z = names[0]
    if not part.attrs.get("label_smoothing"):
        return f" = -log( exp {z}[t] / sum exp {z} )"
    at_target, elsewhere = map(number, smoothed(part))
    return (
        f" = -sum over k of y[k] log( exp {z}[k] / sum exp {z} ),  "
        f"y = {at_target} at t, {elsewhere} elsewhere"
    )


def _index(index: Any) -> str:
    """Return an index as it is written in Python; arrays of indices by a word."""
    places = index if isinstance(index, tuple) else (index,)
    return ", ".join(_place(place) for place in places)


def _place(place: Any) -> str:
    if isinstance(place, slice):
        ends = ["" if end is None else str(end) for end in (place.start, place.stop)]
        return ":".join(ends) + (f":{place.step}" if place.step not in (None, 1) else "")
    if place is Ellipsis:
        return "..."
    return "indices" if np.ndim(place) else str(place)


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
    "embedding": lambda _, n: f" = the rows of {n[0]} that {n[1]} numbers",
    "batch_norm": lambda part, _: _normed(part, "of each channel over the batch"),
    "batch_norm_eval": lambda part, _: _normed(part, "as they ran in training"),
    "layer_norm": lambda part, _: _normed(part, "of each row"),
    "group_norm": lambda part, _: _normed(part, "of each group of channels"),
    "getitem": lambda part, n: f" = {n[0]}[{_index(part.attrs.get('index'))}]",
    "concat": lambda _, n: f" = {', '.join(n)} side by side",
    "cross_entropy": _cross_entropy_formula,
}
"""What follows the symbol of the output."""


def backward_formulas(part: Part) -> list[str]:
    """Return how the error passes through the op and what it leaves in the parameters."""
    names = [operand.symbol for operand in part.inputs]
    if part.op in ACTS:
        slope = ACTS[part.op][1].format(z=names[0], a=part.symbol)
        return [f"dC/d{names[0]} = dC/d{part.symbol} (.) act'({names[0]}),  act' = {slope}"]
    lines = BACKWARD.get(part.op, ())
    if part.op == "cross_entropy" and part.attrs.get("label_smoothing"):
        lines = ("dC/d{0} = softmax({0}) - y,  / batch   (BP1)",)
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
    "embedding": ("dC/d{0}, row v = sum of dC/d{y} where {1} is v",),
    "cross_entropy": ("dC/d{0} = softmax({0}) - 1 at t,  / batch   (BP1)",),
}
