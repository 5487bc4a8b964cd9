"""The CUDA kernels compile for real GPUs, spill nothing, can be launched, and are in the committed table."""

from __future__ import annotations

from pathlib import Path

import pytest

from trine.bench import cuda_gate
from trine.errors import BackendError

COMMITTED = Path(__file__).parents[2] / "bench" / "results" / "cuda-kernels.md"

KERNEL = """
template <class T> __global__ void add(const T* x_n, T* out_n, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) out_n[i] = x_n[i] + x_n[0];
}
"""
TABLE = """
template <class T> __global__ void add(const T* x_n, T* out_n, int n) {
    T table[64];
    for (int i = 0; i < 64; ++i) table[i] = x_n[i];
    for (int i = 0; i < n; ++i) table[(i * n) % 64] += table[(i + n) % 64];
    out_n[threadIdx.x] = table[n % 64];
}
"""
HOST = """
template <class T> __global__ void add(const T* x_n, T* out_n, int n) { out_n[0] = INFINITY; }
"""


@pytest.fixture(scope="module")
def nvrtc():
    path = cuda_gate.library()
    if path is None:
        pytest.skip("NVRTC is not installed: pip install nvidia-cuda-nvrtc")
    return cuda_gate.Nvrtc(path)


def source(folder, text):
    path = folder / "add.cu"
    path.write_text(text)
    return cuda_gate.Source(path, (), ("add<float>", "add<double>"))


def rows(page):
    """Return (file, kernel) -> shared bytes of a table."""
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in page.splitlines()
        if line.startswith("| ") and "`" in line
    ]
    assert len(cells) > 300
    return {(file, kernel): int(shared) for file, kernel, _registers, shared in cells}


def test_every_kernel_compiles_and_can_be_launched(nvrtc):
    found = list(cuda_gate.compile_all(nvrtc))
    assert cuda_gate.spilling(found) == []
    assert cuda_gate.crowded(found) == []
    expressions = {(s.path.name, e) for s in cuda_gate.sources() for e in s.expressions}
    assert {(one.file, one.kernel) for one in found} == expressions
    assert rows(COMMITTED.read_text()) == rows(cuda_gate.page(found, nvrtc.version())), (
        f"run: python -m trine.bench.cuda_gate --out bench/results/{COMMITTED.name}"
    )


def test_tensor_kernels_are_left_to_architectures_that_have_them():
    plain, tensor = "f<float, Small>", ("f<float, SmallTF32>", "f<float, SmallBF16>")
    listed = cuda_gate.Source(Path("f.cu"), (), (plain, *tensor))
    assert listed.on(75).expressions == (plain,)
    assert listed.on(80) == listed
    rows = [cuda_gate.Compiled("f.cu", plain, a, a, 0, 0, 0, 256) for a in cuda_gate.ARCHITECTURES]
    rows += [cuda_gate.Compiled("f.cu", tensor[0], a, a, 0, 0, 0, 256) for a in (80, 90, 100)]
    text = cuda_gate.page(rows, "13.0")
    assert f"| `{plain}` | 75 80 90 100 |" in text
    assert f"| `{tensor[0]}` | - 80 90 100 |" in text


def test_each_kernel_is_reported(nvrtc, tmp_path, monkeypatch):
    monkeypatch.setattr(cuda_gate, "sources", lambda: [source(tmp_path, KERNEL)])
    found = list(cuda_gate.compile_all(nvrtc))
    assert len(found) == 2 * len(cuda_gate.ARCHITECTURES)
    assert all(0 < one.registers <= 255 for one in found)
    assert cuda_gate.spilling(found) == []


def test_a_stack_frame_is_found(nvrtc, tmp_path, monkeypatch):
    monkeypatch.setattr(cuda_gate, "sources", lambda: [source(tmp_path, TABLE)])
    lines = cuda_gate.spilling(list(cuda_gate.compile_all(nvrtc)))
    assert any("add<float> on sm_80" in line and " 0 bytes of stack" not in line for line in lines)


def test_a_block_with_more_registers_than_there_are_is_found(tmp_path):
    def needs(registers, threads):
        return cuda_gate.Compiled("f.cu", "f", 80, registers, 0, 0, 0, threads)

    # 512 threads have 128 registers each, 256 have all that a thread can name; they come by 8.
    assert cuda_gate.crowded([needs(128, 512), needs(255, 256), needs(168, 384)]) == []
    lines = cuda_gate.crowded([needs(129, 512), needs(169, 384)])
    assert [line.partition(": ")[2] for line in lines] == [
        "129 registers a thread, 512 threads",
        "169 registers a thread, 384 threads",
    ]
    declared = KERNEL + KERNEL.replace("void add", "void __launch_bounds__(64) few")
    blocks = source(tmp_path, declared).largest_blocks()
    assert blocks == {"add": cuda_gate.LARGEST_BLOCK, "few": 64}


def test_what_only_a_host_compiler_knows_is_an_error(nvrtc, tmp_path):
    with pytest.raises(BackendError, match=r"(?s)add.cu to compile for sm_80.*INFINITY"):
        nvrtc.compile(source(tmp_path, HOST), 80)


def test_a_kernel_that_is_not_there_is_an_error(nvrtc, tmp_path):
    wrong = cuda_gate.Source(source(tmp_path, KERNEL).path, (), ("sub<float>",))
    with pytest.raises(BackendError, match="NVRTC says"):
        nvrtc.compile(wrong, 80)
