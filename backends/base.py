"""The backend contract: every op, with a body that works on any NumPy-like array module.

`Backend` is concrete. Its ops, gathered here from `backends/reference`, have their signature, their
documentation and a plain body on `self.xp`; that body is the reference. A backend adds an array
module, a device and kernels; the ops' names and signatures are the same on all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from trine.backends.allocator import PoolAllocator
from trine.backends.dispatch import Counters, Launcher, Plan, build_launchers
from trine.backends.op import OPS, OpSpec, bind_op
from trine.backends.recording import LaunchRecorder, Recorder
from trine.backends.reference.activation import ActivationOps
from trine.backends.reference.arrays import ArrayOps
from trine.backends.reference.conv import ConvOps
from trine.backends.reference.dropout import DropoutOps
from trine.backends.reference.elementwise import ElementwiseOps
from trine.backends.reference.embedding import EmbeddingOps
from trine.backends.reference.linear import LinearOps
from trine.backends.reference.norm import NormOps
from trine.backends.reference.optimiser import OptimiserOps
from trine.backends.reference.pool import PoolOps
from trine.backends.reference.recurrent import RecurrentOps
from trine.backends.reference.reduce import ReduceOps
from trine.backends.reference.regions import RegionOps
from trine.backends.reference.shape import ShapeOps
from trine.backends.reference.softmax import SoftmaxOps
from trine.dtypes import Array
from trine.errors import BackendError, suggest
from trine.kernels import registry


class Backend(
    ArrayOps,
    ElementwiseOps,
    ReduceOps,
    ShapeOps,
    ActivationOps,
    LinearOps,
    ConvOps,
    PoolOps,
    SoftmaxOps,
    NormOps,
    EmbeddingOps,
    DropoutOps,
    RecurrentOps,
    RegionOps,
    OptimiserOps,
):
    """The reference on an array module, and the hooks by which a backend runs kernels."""

    name: str
    device: str

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self.allocator = PoolAllocator()
        self.counters = Counters()
        self.precision = "fp32"
        """To what factors of products of float32 are rounded; see `set_precision`."""
        self.strict = False
        """Whether a call that no registered kernel serves is an error."""
        self.ran: dict[str, str] = {}
        """Op -> the kernel, or "reference", that served its last call."""
        self._launchers: dict[str, tuple[Launcher, ...]] = {}
        self._generation = -1
        self.plans: dict[Any, Plan] = {}
        """What was decided for calls seen before."""

    def launchers(self, spec: OpSpec) -> tuple[Launcher, ...]:
        """Return the kernels of an op in the order in which they are tried."""
        if self._generation != registry.generation():
            self._launchers.clear()
            self.plans.clear()
            self._generation = registry.generation()
        found = self._launchers.get(spec.name)
        if found is None:
            found = self._launchers[spec.name] = build_launchers(self, spec)
        return found

    @property
    def precisions(self) -> tuple[str, ...]:
        """What `set_precision` takes here."""
        return ("fp32",)

    def set_precision(self, mode: str) -> None:
        """Choose the precision of products of float32: "fp32", "tf32" or "bf16".

        Sums, weights and all else stay float32. Raises ValueError for an unknown mode, BackendError
        for one that this backend or its device lacks.
        """
        if mode not in registry.PRECISIONS:
            raise suggest("precision", "mode", mode, registry.PRECISIONS)
        if mode not in self.precisions:
            raise BackendError(
                f"[precision] expected fp32 on {self.name}, got {mode}: {self.why_fp32()}."
            )
        if mode != self.precision:
            self.precision = mode
            self._launchers.clear()
            self.plans.clear()

    def why_fp32(self) -> str:
        """Return why products are in fp32 only, and what to do."""
        return "its products are plain float32. Use the cupy backend, or leave precision at fp32"

    def make_launch(self, spec: OpSpec, entry: registry.Kernel) -> Callable[..., Any]:
        """Return a function that takes a call's arguments by name and runs the kernel."""
        function, parameters = entry.function, entry.parameters

        def launch(**call: Any) -> None:
            function(*[call[name] for name in parameters])

        return launch

    def kernel_function(self, entry: registry.Kernel) -> Callable[..., Any] | None:
        """Return what runs a kernel given its parameters in order, if there is such a function."""
        return entry.function

    def prepare(self, launched: Any, arrays: Sequence[Any]) -> Callable[..., None] | None:
        """Return a function of a call's arrays and outputs that repeats what a launch returned.

        None where only the launch itself can do a call.
        """
        return None

    def recorder(self) -> Recorder:
        """Return what notes a captured step."""
        return LaunchRecorder(self)

    def thread_count(self) -> int:
        """Return on how many threads kernels run."""
        return 1

    def note_launches(self, launches: list[Any]) -> AbstractContextManager[None]:
        """Append what kernels launch inside the block; here nothing that could be repeated."""
        return nullcontext()

    def array_entry(self, name: str, args: tuple[Any, ...], made: Sequence[Array]) -> Any:
        """Return what stands for a plain call on arrays among launches; None if nothing does."""
        return None

    def compile_entries(self, entries: Sequence[Any]) -> Callable[[], None]:
        """Return a function that repeats launches and what stands among them."""
        raise NotImplementedError(f"the {self.name} backend notes no launches")

    def contiguous(self, array: Array) -> Array:
        """Return a copy with its elements in row-major order, for a kernel that asks for it."""
        return self.xp.ascontiguousarray(array)

    def before_launch(self) -> None:
        """Called before each kernel; a backend raises here if its kernels cannot run now."""

    def __repr__(self) -> str:
        return f"<{self.name} backend on {self.device}>"


def define_backend_op(spec: OpSpec) -> None:
    """Give every backend a method for an op that a user defined.

    Raises ValueError if the contract has a method of that name already.
    """
    if spec.name not in OPS and hasattr(Backend, spec.name):
        raise ValueError(
            f"[define_op] expected a new op name, got {spec.name!r}, which backends already have. "
            "Choose another name."
        )
    OPS[spec.name] = spec
    setattr(Backend, spec.name, bind_op(spec))
