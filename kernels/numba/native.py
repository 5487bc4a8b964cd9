"""Functions spelled out in LLVM, compiled by themselves, once, and called by kernels.

Numba links what a kernel calls into the kernel and optimises it again, in each variant of each
kernel. For a register tile that costs far more than the kernel itself. So these functions live in
an object file of their own in the kernels' cache; kernels hold only their names.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import tempfile
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.codegen import get_host_cpu_features
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from trine.kernels.numba.jit import cache_dir

Emit = Callable[..., None]
"""Fills a function: called with the builder, the element type and the arguments."""

_I64 = ir.IntType(64)
ELEMENTS = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}


def _machine() -> Any:
    """Return LLVM's description of this machine, as Numba would choose it."""
    cpu_target.target_context.codegen()  # initialises LLVM
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=get_host_cpu_features(), opt=3,
        reloc="default", codemodel="jitdefault", jit=True,
    )  # fmt: skip


class Library:
    """Functions for float32 and float64 that are compiled together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.functions: dict[str, tuple[str, Emit]] = {}
        self.engine: Any = None

    def function(self, name: str, arguments: str, emit: Emit) -> Any:
        """Add a function; return what kernels call: f(like, *arguments).

        arguments: a letter each, i for int64 and x for an element; `like`, a number, tells the type.
        """
        self.functions[name] = arguments, emit

        def call(typingctx: Any, like: Any, *given: Any) -> Any:
            kinds = [types.int64 if kind == "i" else like for kind in arguments]

            def emit_call(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                symbol, kind = self._symbol(name, signature.args[0])
                function = cgutils.get_or_insert_function(builder.module, kind, symbol)
                builder.call(function, args[1:])
                return context.get_dummy_value()

            return types.void(like, *kinds), emit_call

        names = ["typingctx", "like", *(f"{kind}{i}" for i, kind in enumerate(arguments))]
        call.__signature__ = inspect.Signature(
            [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in names]
        )
        return intrinsic(call)

    def _symbol(self, name: str, element: Any) -> tuple[str, Any]:
        arguments, _ = self.functions[name]
        kinds = [_I64 if kind == "i" else ELEMENTS[element] for kind in arguments]
        return f"trine_{self.name}_{name}_{element}", ir.FunctionType(ir.VoidType(), kinds)

    def _compiled(self, machine: Any) -> bytes:
        """Return the object file."""
        module = ir.Module(self.name)
        module.triple, module.data_layout = machine.triple, str(machine.target_data)
        for name, (_, emit) in self.functions.items():
            for element in ELEMENTS:
                symbol, kind = self._symbol(name, element)
                function = ir.Function(module, kind, symbol)
                function.attributes.add("nounwind")
                builder = ir.IRBuilder(function.append_basic_block())
                emit(builder, element, *function.args)
                builder.ret_void()
        parsed = llvm.parse_assembly(str(module))
        parsed.verify()
        passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(2))
        passes.getModulePassManager().run(parsed, passes)
        compiled: bytes = machine.emit_object(parsed)
        return compiled

    def load(self) -> None:
        """Make the functions known to LLVM, compiled now or before; kernels need that first."""
        if self.engine is not None:
            return
        path = cache_dir() / f"{self.name}.o"
        try:
            compiled = path.read_bytes()
        except OSError:
            compiled = self._compiled(_machine())
            with contextlib.suppress(OSError):  # without a file the next process compiles it again
                descriptor, temporary = tempfile.mkstemp(dir=path.parent)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(compiled)
                os.replace(temporary, path)  # at once, for processes that start together
        empty = llvm.parse_assembly(f'target triple = "{llvm.get_process_triple()}"')
        self.engine = llvm.create_mcjit_compiler(empty, _machine())
        self.engine.add_object_file(llvm.ObjectFileRef.from_data(compiled))
        self.engine.finalize_object()
        for name in self.functions:
            for element in ELEMENTS:
                symbol, _ = self._symbol(name, element)
                llvm.add_symbol(symbol, self.engine.get_function_address(symbol))
