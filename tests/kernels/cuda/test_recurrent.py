"""Recurrent nets over several tiles of sequences and units, with lengths and in reverse."""

from __future__ import annotations

import numpy as np
import pytest

RNG = np.random.default_rng(14)
BLOCKS = {"rnn": 1, "gru": 3, "lstm": 4}


def normal(shape, dtype="float32"):
    return RNG.normal(size=shape).astype(dtype)


def net(op, size, dtype):
    """Return x, the first states and W_ih, W_hh."""
    steps, batch, inputs, units = size
    rows = BLOCKS[op] * units
    states = [normal((batch, units), dtype) for _ in range(1 + (op == "lstm"))]
    weights = [(normal((rows, n)) / n**0.5).astype(dtype) for n in (inputs, units)]
    return normal((steps, batch, inputs), dtype), states, weights


def both_ways(cuda, agrees, op, size, dtype="float32", lengths=None, **attrs):
    x, states, weights = net(op, size, dtype)
    biases = [normal((weights[0].shape[0],), dtype) for _ in range(2)]
    agrees(op, x, *states, *weights, *biases, lengths, tolerance="recurrent", **attrs)
    arrays = [None if a is None else cuda.xp.asarray(a)
              for a in (x, *states, *weights, *biases, lengths)]  # fmt: skip
    results = [cuda.to_numpy(r) for r in getattr(cuda, op)(*arrays, **attrs)]
    out, saved = results[0], results[1 + len(states) :]
    grads = [normal(out.shape, dtype), *(normal(s.shape, dtype) for s in states)]
    arrays = (*grads, x, *states, *weights, out, *saved, lengths)
    agrees(f"{op}_backward", *arrays, tolerance="recurrent", **attrs)


@pytest.mark.parametrize("op", BLOCKS)
def test_several_tiles_of_sequences_and_units(cuda, agrees, order, op):
    both_ways(cuda, agrees, op, (2, 18, 3, 37))


@pytest.mark.parametrize("op", BLOCKS)
@pytest.mark.parametrize("reverse", [False, True])
def test_lengths_keep_states_and_ignore_inputs(cuda, agrees, op, reverse):
    lengths = np.array([4, 1, 3, 0], "int32" if op == "rnn" else "int64")
    both_ways(cuda, agrees, op, (4, 4, 2, 5), "float64", lengths, reverse=reverse)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_plain_nets_of_both_kinds(cuda, agrees, nonlinearity):
    both_ways(cuda, agrees, "rnn", (5, 3, 4, 33), nonlinearity=nonlinearity)


def test_deep_sums_of_weights_are_cut(cuda, agrees):
    """8 steps of 65 sequences: more terms than one split takes."""
    both_ways(cuda, agrees, "gru", (8, 65, 2, 3), "float64")
