"""Recorded launches as one native function, which repeats them on the same memory.

Calling a compiled function from Python costs some microseconds: each array is taken apart into a
pointer, sizes and strides. In a recorded step all of these are known, so the calls are written out
with constants, one after another, and compiled. Between them stand the copies, fills and sums of
whole arrays that a step does outside of kernels.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.registry import cpu_target

from trine.dtypes import Array
from trine.kernels.numba import jit, native

_I8, _I64 = ir.IntType(8), ir.IntType(64)
ELEMENTS = {
    "float32": ir.FloatType(),
    "float64": ir.DoubleType(),
    "int32": ir.IntType(32),
    "int64": ir.IntType(64),
}
"""The dtypes of which whole arrays are added."""
MOST_ADDED = 4096
"""Elements up to which a plain loop adds arrays; NumPy adds longer ones faster."""


class Add(NamedTuple):
    """target += source, for contiguous arrays of one shape, or one number, among `ELEMENTS`."""

    target: Array
    source: Array


Entry = jit.Launch | jit.Copy | Add


def copyable(target: Array, source: Any) -> bool:
    """Return whether `target[...] = source` is a `Copy`."""
    return (
        isinstance(source, np.ndarray)
        and target.shape == source.shape
        and target.dtype == source.dtype
    )


def addable(target: Array, source: Any) -> bool:
    """Return whether `target += source` is an `Add`."""
    return (
        isinstance(source, np.ndarray)
        and (target.shape == source.shape or source.shape == (1,))
        and target.dtype == source.dtype
        and target.flags.c_contiguous
        and source.flags.c_contiguous
        and target.dtype.name in ELEMENTS
        and target.size <= MOST_ADDED
    )


def compile_entries(entries: Sequence[Entry]) -> Callable[[], None]:
    """Return a function that repeats the entries in order.

    It does not keep their arrays: who made the recording does.
    """
    cpu_target.target_context.refresh()
    machine = native.host_machine()
    module = ir.Module("trine_replay")
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), []), "trine_replay")
    b = ir.IRBuilder(function.append_basic_block())
    results: dict[Any, Any] = {}
    for entry in entries:
        if isinstance(entry, jit.Copy):
            _emit_copy(b, entry)
        elif isinstance(entry, Add):
            _emit_add(b, entry)
        else:
            _emit_launch(b, entry, results)
    b.ret_void()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(str(module)), machine)
    engine.finalize_object()
    run = ctypes.CFUNCTYPE(None)(engine.get_function_address("trine_replay"))
    parallel = any(isinstance(entry, jit.Launch) and entry.parallel for entry in entries)

    def replay(engine: Any = engine) -> None:  # holds the engine, which owns the code
        if parallel:
            jit.run_parallel(run, ())
        else:
            run()

    return replay


def _pointer(b: Any, array: Array, kind: Any) -> Any:
    return b.inttoptr(ir.Constant(_I64, array.ctypes.data), kind.as_pointer())


def _emit_copy(b: Any, entry: jit.Copy) -> None:
    target, source = entry.target, entry.source
    into, out_of = _pointer(b, target, _I8), _pointer(b, source, _I8)
    if target.flags.c_contiguous and source.flags.c_contiguous:
        cgutils.raw_memmove(b, into, out_of, ir.Constant(_I64, target.nbytes), 1)
        return
    sizes = [ir.Constant(_I64, size) for size in target.shape]
    with cgutils.loop_nest(b, sizes, _I64) as indices:
        places = []
        for base, array in ((into, target), (out_of, source)):
            place = ir.Constant(_I64, 0)
            for index, stride in zip(indices, array.strides, strict=True):
                place = b.add(place, b.mul(index, ir.Constant(_I64, stride)))
            kind = ir.IntType(8 * array.itemsize).as_pointer()
            places.append(b.bitcast(b.gep(base, [place]), kind))
        b.store(b.load(places[1]), places[0])


def _emit_add(b: Any, entry: Add) -> None:
    kind = ELEMENTS[entry.target.dtype.name]
    target, source = _pointer(b, entry.target, kind), _pointer(b, entry.source, kind)
    with cgutils.for_range(b, ir.Constant(_I64, entry.target.size), intp=_I64) as loop:
        place = b.gep(target, [loop.index])
        added = source if entry.source.size == 1 else b.gep(source, [loop.index])
        x, y = b.load(place), b.load(added)
        b.store(b.add(x, y) if isinstance(kind, ir.IntType) else b.fadd(x, y), place)


def _emit_launch(b: Any, entry: jit.Launch, results: dict[Any, Any]) -> None:
    """Emit a call of a compiled function by its address, by Numba's convention for calls."""
    context = cpu_target.target_context
    values = _parameters(entry.function.py_func, entry.args)
    kinds = tuple(numba.typeof(value) for value in values)
    compiled = entry.function.overloads[kinds]
    described = compiled.fndesc
    address = compiled.library.get_pointer_to_function(described.llvm_func_name)
    signature = context.call_conv.get_function_type(described.restype, described.argtypes)
    given = [_constant(context, b, kind, v) for kind, v in zip(kinds, values, strict=True)]
    flat = context.get_arg_packer(described.argtypes).as_arguments(b, given)
    kept = []  # where a call leaves its result and its exception; kernels have neither
    for kind in signature.args[:2]:
        if kind not in results:
            results[kind] = cgutils.alloca_once(b, kind.pointee)
        kept.append(results[kind])
    b.call(b.inttoptr(ir.Constant(_I64, address), signature.as_pointer()), [*kept, *flat])


def _parameters(function: Callable[..., Any], args: tuple[Any, ...]) -> list[Any]:
    """Return a value for each parameter; those of `*args` as a tuple."""
    found = list(args)
    for position, parameter in enumerate(inspect.signature(function).parameters.values()):
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            found[position:] = [tuple(args[position:])]
    return found


def _constant(context: Any, b: Any, kind: Any, value: Any) -> Any:
    """Return a value of Numba's type as constants, arrays by where they lie."""
    if isinstance(kind, types.Array):
        struct = context.get_value_type(kind)
        sizes = ir.ArrayType(_I64, kind.ndim)
        data = ir.Constant(_I64, value.ctypes.data).inttoptr(struct.elements[4])
        return ir.Constant(
            struct,
            [
                ir.Constant(struct.elements[0], None), ir.Constant(struct.elements[1], None),
                ir.Constant(_I64, value.size), ir.Constant(_I64, value.itemsize), data,
                ir.Constant(sizes, list(value.shape)), ir.Constant(sizes, list(value.strides)),
            ],
        )  # fmt: skip
    if isinstance(kind, types.BaseTuple):
        parts = [_constant(context, b, k, v) for k, v in zip(kind.types, value, strict=True)]
        return ir.Constant(context.get_value_type(kind), parts)
    return context.get_constant_generic(b, kind, value)
