"""Local response normalisation in CUDA, run by the emulator."""

from __future__ import annotations

import pytest

from trine.backends.cases import check


@pytest.mark.parametrize("op", ["local_response_norm", "local_response_norm_backward"])
def test_kernels_agree_with_float64(cupy_backend, op):
    results = check.check_op(op, "cupy")
    assert not [str(r) for r in results if r.status != "passed"]
    assert {r.kernel for r in results} == {"grid"}
