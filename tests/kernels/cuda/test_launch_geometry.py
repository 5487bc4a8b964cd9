"""Grids and blocks: as many threads as a kernel's outer loop has work for, no round more, none idle.

Results would not tell: a loop over a grid does all of its work with any grid. So the work is read from
the loop as the `.cu` has it, and held against the launches of each op's cases.
"""

from __future__ import annotations

import re
from functools import lru_cache

import pytest
from recorded import OP_NAMES, RecordingModule, launches_of

from trine.bench.cuda_gate import INSTANCES, LARGEST_BLOCK
from trine.kernels.cuda.emulator.source import kernels, strip_comments

LOOP = re.compile(
    r"for \((?:long long|int) (?P<i>\w+) = (?P<first>[\w:.() /]+?); "
    r"(?P=i)(?: \* (?P<each>\w+))? < (?P<bound>\w+); "
    r"(?P=i) \+= (?:step_of_grid\(\)|\w+::step\(\)|gridDim\.x)"
)
WARP = 32
THREADS = {
    "total_loss": 512, "total_weight": 512, "delta_sum": 512, "nms_order": 128, "nms_marks": 128,
    "roi_weights": 64, "roi_pool_backward": 128, "roi_align_backward": 128,
    "plain_step": 64, "gated_step": 64, "step_backward": 64,
}  # fmt: skip
"""Threads of a block where they are not 256. A block's sum has other bits with another number."""
MANY_BLOCKS = 1024
"""From so many on a launch may leave threads more than one round."""


@pytest.fixture
def recording(stand_in, monkeypatch, request):
    """A cupy backend whose kernels note their launches instead of running."""
    monkeypatch.setattr(stand_in, "RawModule", RecordingModule)
    return request.getfixturevalue("cupy_backend")


@lru_cache
def body_of(file: str, kernel: str) -> str:
    """Return the text of a kernel's body."""
    code = strip_comments((INSTANCES.parent / file).read_text())
    start = re.search(rf"\b{kernel}\s*\([^)]*\)\s*\{{", code)
    assert start is not None
    following = [code.find("__global__", start.end())]
    return code[start.end() : following[0] if following[0] > 0 else len(code)]


def value_of(name: str, body: str, numbers: dict) -> int:
    """Return what a bound is: an argument, or what the kernel computes from arguments at once."""
    if name in numbers:
        return numbers[name]
    formula = re.search(rf"const long long {name} = ([^;]+);", body)
    assert formula is not None, name
    plain = formula[1].replace("(long long)", "")
    return int(eval(plain, {}, numbers))


def done_at_once(loop: re.Match, launch) -> int:
    """Return how much of a loop's work a block does in a round."""
    threads = launch.block[0] * launch.block[1] * launch.block[2]
    each = loop["each"] or "1"
    factor = int(each) if each.isdigit() else dict(launch.numbers)[each]
    first = loop["first"].replace(" ", "")
    if first == "first_of_grid()":
        return threads * factor
    if first == "first_of_grid()/lanes":
        return threads // int(launch.expression.rstrip(">").split(",")[1]) * factor
    if first == "blockIdx.x":
        return factor
    team = next(
        (t for t in ("WarpRow", "BlockRow", "ColumnRow") if t in launch.expression), "WarpRow"
    )
    return {"WarpRow": threads // WARP, "BlockRow": 1, "ColumnRow": launch.block[0]}[team] * factor


@pytest.mark.parametrize("op", OP_NAMES)
def test_a_launch_has_the_threads_that_its_loops_need(recording, op):
    for launch in set(launches_of(recording, op)):
        threads = launch.block[0] * launch.block[1] * launch.block[2]
        usual = 128 if "Direct" in launch.expression else THREADS.get(launch.kernel, 256)
        assert threads == usual or ("BlockRow" in launch.expression and threads == 512), (
            f"{launch}: {usual} threads were expected; enter another number in THREADS"
        )
        assert threads <= LARGEST_BLOCK, f"{launch}: the gate counts registers for fewer threads"
        body = body_of(launch.file, launch.kernel)
        loop = LOOP.search(body)
        if loop is None or loop.start() > body.find("__syncthreads") > 0:
            continue
        work = value_of(loop["bound"], body, dict(launch.numbers))
        wanted = max(1, -(-work // done_at_once(loop, launch)))
        assert launch.grid[0] == wanted or MANY_BLOCKS <= launch.grid[0] < wanted, (
            f"{op} launches {launch.grid[0]} blocks of {threads} threads for {work}: {launch.expression}"
        )


def test_loops_over_grids_are_recognised():
    """Every kernel whose text steps through a grid is one whose work is read."""
    for path in sorted(INSTANCES.parent.glob("*.cu")):
        for kernel in kernels(strip_comments(path.read_text())):
            body = body_of(path.name, kernel.name)
            if re.search(r"\+= (?:step_of_grid\(\)|\w+::step\(\)|gridDim\.x)", body):
                assert LOOP.search(body), f"{path.name}: {kernel.name}"
