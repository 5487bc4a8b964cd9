"""Kernels whose one compiled body runs in a plain loop or over the threads.

Numba compiles a loop over `prange` several times: as a function, as a work item, as its wrapper, and
once more for the serial variant. Here an item of work is a function by itself, `item(i, *args)`, and
what starts it is a few instructions: a loop, or a call of the thread pool with the same function.
So serial and parallel runs are the same code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.extending import intrinsic
from numba.np.ufunc import parallel as pool

from trine.kernels.numba import jit

Function = Callable[..., Any]

_I64 = ir.IntType(64)
_BYTES = ir.IntType(8).as_pointer()
_SIZES = _I64.as_pointer()


class _Nowhere:
    """Stands for the code generator of functions that are in no memory."""

    def set_env(self, name: str, env: Any) -> None:
        """What Python objects a function needs is never asked for."""


class _Part(JITCodeLibrary):
    """Code that is only linked into other code, and optimised and translated there."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0

    @property
    def codegen(self) -> Any:
        return _Nowhere()


class _PartCompiler(CompilerBase):
    """Numba's usual steps, but for machine code."""

    def define_pipelines(self) -> list[Any]:
        name = self.state.func_id.func_qualname
        self.state.library = _Part(self.state.targetctx.codegen(), name)
        return [DefaultPassBuilder.define_nopython_pipeline(self.state)]


def inner(function: Function) -> Function:
    """Compile a helper that only kernels call: what Python needs to call it is left out.

    Numba optimises and translates every helper by itself before it links and optimises it again.
    """
    compiled: Function = numba.njit(
        function, pipeline_class=_PartCompiler, no_cpython_wrapper=True, no_cfunc_wrapper=True,
        **jit.COMMON,
    )  # fmt: skip
    return compiled


@intrinsic
def each(typingctx: Any, item: Any, pool_loop: Any, threads: Any, count: Any, args: Any) -> Any:
    """Call item(i, *args) for i < count: in a loop, or by the pool's loop at address `pool_loop`."""
    called = typingctx.resolve_function_type(item, (types.int64, *args.types), {})
    signature = types.void(item, types.int64, types.int64, types.int64, args)

    def emit(context: Any, b: Any, signature: Any, values: Any) -> Any:
        _, pool_loop, threads, count, given = values
        compiled = item.dispatcher.overloads[called.args]
        context.add_linking_libs([compiled.library])
        packed = cgutils.alloca_once_value(b, given)
        work = _items(context, b, compiled, given.type)
        parallel = b.icmp_unsigned("!=", pool_loop, ir.Constant(_I64, 0))
        first = b.alloca(_BYTES)  # the pool adds its first index to this address
        sizes, steps = b.alloca(_I64), b.alloca(_I64)
        data = b.bitcast(packed, _BYTES)
        b.store(count, sizes)
        b.store(ir.Constant(_I64, 1), steps)
        b.store(ir.Constant(_BYTES, None), first)
        with b.if_else(parallel) as (many, one):
            with many:
                kinds = [_BYTES, _BYTES.as_pointer(), _SIZES, _SIZES, _BYTES, _I64, _I64]
                loop = ir.FunctionType(ir.VoidType(), [*kinds, ir.IntType(32)])
                b.call(
                    b.inttoptr(pool_loop, loop.as_pointer()),
                    [
                        b.bitcast(work, _BYTES), first, sizes, steps, data, ir.Constant(_I64, 0),
                        ir.Constant(_I64, 1), b.trunc(threads, ir.IntType(32)),
                    ],
                )  # fmt: skip
            with one:
                b.call(work, [first, sizes, steps, data])
        return context.get_dummy_value()

    return signature, emit


def _items(context: Any, outer: Any, compiled: Any, packed: Any) -> Any:
    """Emit what a thread of the pool runs: the items from an index on, some of them.

    Items raise nothing, so nobody looks at how they ended.
    """
    kinds = [_BYTES.as_pointer(), _SIZES, _SIZES, _BYTES]
    name = outer.module.get_unique_name("items")
    work = ir.Function(outer.module, ir.FunctionType(ir.VoidType(), kinds), name)
    work.linkage = "internal"
    b = ir.IRBuilder(work.append_basic_block())
    first, sizes, _, data = work.args
    start, count = b.ptrtoint(b.load(first), _I64), b.load(sizes)
    given = b.load(b.bitcast(data, packed.as_pointer()))
    args = [b.extract_value(given, i) for i in range(len(packed.elements))]
    item = context.declare_function(outer.module, compiled.fndesc)
    called = compiled.signature
    with cgutils.for_range(b, count, intp=_I64) as loop:
        context.call_conv.call_function(
            b, item, called.return_type, called.args, [b.add(start, loop.index), *args]
        )
    b.ret_void()
    return work


@lru_cache(maxsize=1)
def _pool_loop() -> int:
    """Return the address of the thread pool's loop; this starts the pool."""
    pool._launch_threads()
    return int(llvm.address_of_symbol("numba_parallel_for"))


class Spread(jit.Parallel):
    """A function f(pool_loop, threads, count, *args) that calls `each`."""

    def _compile(self, kind: str, options: dict[str, Any]) -> Any:
        return super()._compile(kind, {**options, "no_cfunc_wrapper": True})

    def __call__(self, work: int, *args: Any) -> None:
        """Run with count, *args; `work`, about the number of operations, decides who runs it."""
        if work < self.grain or jit.threads.count == 1:
            jit.launch(self.serial, (0, 1, *args), parallel=False)
        else:
            jit.check_fork()
            jit.launch(self.serial, (_pool_loop(), jit.threads.count, *args), parallel=True)


def spread(*, grain: int = jit.GRAIN) -> Callable[[Function], Spread]:
    """Compile the decorated function, which calls `each`; it is called with work and count first."""

    def wrap(function: Function) -> Spread:
        return Spread(function, grain, False)

    return wrap
