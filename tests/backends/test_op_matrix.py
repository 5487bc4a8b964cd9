"""The committed matrix of ops is the one that the code has."""

from __future__ import annotations

from pathlib import Path

from trine.backends import op_matrix

COMMITTED = Path(__file__).parents[2] / "docs" / "op-matrix.md"


def test_the_committed_matrix_is_current():
    assert COMMITTED.read_text(encoding="utf-8").strip() == op_matrix.render().strip(), (
        "run: trine doctor --ops > docs/op-matrix.md"
    )


def test_the_hot_path_has_numba_kernels():
    rows = {row["op"]: row for row in op_matrix.rows()}
    for op in (
        "conv2d", "conv2d_input_grad", "conv2d_weight_grad", "max_pool2d", "max_pool2d_backward",
        "avg_pool2d", "avg_pool2d_backward", "cross_entropy", "cross_entropy_backward", "bias_act",
        "bias_act_backward", "sgd_step", "adam_step", "rmsprop_step", "adagrad_step", "unit_step",
        "random_bits",
    ):  # fmt: skip
        assert rows[op]["numba float32"] != "reference", op
        assert rows[op]["numba float64"] != "reference", op
