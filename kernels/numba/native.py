"""Functions spelled out in LLVM, compiled by themselves, once, and called by kernels.

Numba links what a kernel calls into the kernel and optimises it again, in each variant of each
kernel. For a register tile that costs far more than the kernel itself. So these functions live in
an object file of their own in the kernels' cache; kernels hold only their names.
"""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.codegen import get_host_cpu_features
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from trine.kernels.numba.jit import before_loading, cache_dir

Emit = Callable[..., None]
"""Fills a function: called with the builder, the element type and the arguments."""

_I64 = ir.IntType(64)
ELEMENTS = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}


def host_machine() -> Any:
    """Return LLVM's description of this machine, as Numba would choose it."""
    cpu_target.target_context.codegen()  # initialises LLVM
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=get_host_cpu_features(), opt=3,
        reloc="default", codemodel="jitdefault", jit=True,
    )  # fmt: skip


class Library:
    """Functions for float32 and for float64, those of a type compiled together."""

    def __init__(self, name: str) -> None:
        self.name = name
        before_loading.append(self.load_cached)
        self.functions: dict[str, tuple[str, Emit]] = {}
        self.engines: dict[Any, Any] = {}

    def function(self, name: str, arguments: str, emit: Emit) -> Any:
        """Add a function; return what kernels call: f(like, *arguments).

        arguments: a letter each, i for int64 and x for an element; `like`, a number, tells the type.
        """
        self.functions[name] = arguments, emit

        def call(typingctx: Any, like: Any, *given: Any) -> Any:
            kinds = [types.int64 if kind == "i" else like for kind in arguments]

            def emit_call(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                self.load(signature.args[0])
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

    def _path(self, element: Any) -> Path:
        return cache_dir() / f"{self.name}_{element}.o"

    def _compiled(self, element: Any) -> bytes:
        """Return the object file; what is spelled out needs no more passes than code generation."""
        machine = host_machine()
        module = ir.Module(self.name)
        module.triple, module.data_layout = machine.triple, str(machine.target_data)
        for name, (_, emit) in self.functions.items():
            symbol, kind = self._symbol(name, element)
            function = ir.Function(module, kind, symbol)
            function.attributes.add("nounwind")
            builder = ir.IRBuilder(function.append_basic_block())
            emit(builder, element, *function.args)
            builder.ret_void()
        compiled: bytes = machine.emit_object(llvm.parse_assembly(str(module)))
        return compiled

    def load(self, element: Any) -> None:
        """Make the functions of a type known to LLVM, compiled now or before."""
        if element in self.engines:
            return
        path = self._path(element)
        try:
            compiled = path.read_bytes()
        except OSError:
            compiled = self._compiled(element)
            descriptor, temporary = tempfile.mkstemp(dir=path.parent)
            with os.fdopen(descriptor, "wb") as file:
                file.write(compiled)
            os.replace(temporary, path)  # at once, for processes that start together
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), host_machine())
        engine.add_object_file(llvm.ObjectFileRef.from_data(compiled))
        engine.finalize_object()
        for name in self.functions:
            symbol, _ = self._symbol(name, element)
            llvm.add_symbol(symbol, engine.get_function_address(symbol))
        self.engines[element] = engine

    def load_cached(self) -> None:
        """Make known what kernels in the cache may call, since LLVM asks for it when they load."""
        for element in ELEMENTS:
            if element not in self.engines and self._path(element).exists():
                self.load(element)  # written before the first kernel that calls them
