"""Modules: trees of layers that own parameters."""

from __future__ import annotations

import copy
import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import numpy.typing as npt

from trine import random
from trine.backends import Backend
from trine.dtypes import Array
from trine.nn import state
from trine.nn.parameter import Parameter
from trine.tensor import Tensor

PreHook = Callable[["Module", tuple[Any, ...]], Any]
ForwardHook = Callable[["Module", tuple[Any, ...], Any], Any]


class LoadResult(NamedTuple):
    """Names that `load_state_dict(strict=False)` did not find, and those it had no use for."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class HookHandle:
    """Takes a module's hook away again, by `remove()` or at the end of a `with` block."""

    def __init__(self, hooks: dict[int, Any], number: int) -> None:
        self._hooks, self._number = hooks, number

    def remove(self) -> None:
        """Remove the hook; does nothing the second time."""
        self._hooks.pop(self._number, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


class Module:
    """The base of all layers and models.

    A subclass calls `super().__init__()`, assigns parameters, modules and buffers to attributes,
    which registers them in that order, and defines `forward`.
    """

    training: bool

    def __init__(self) -> None:
        put = object.__setattr__
        put(self, "training", True)
        put(self, "_parameters", {})
        put(self, "_buffers", {})
        put(self, "_transient", set())
        put(self, "_modules", {})
        put(self, "_pre_hooks", {})
        put(self, "_hooks", {})
        put(self, "_hook_numbers", itertools.count())
        put(self, "_parent", None)
        put(self, "_name", "")

    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _transient: set[str]
    _modules: dict[str, Module | None]
    _pre_hooks: dict[int, PreHook]
    _hooks: dict[int, ForwardHook]
    _parent: weakref.ref[Module] | None
    _name: str

    # Attributes

    def __setattr__(self, name: str, value: Any) -> None:
        tables = self.__dict__
        if "_modules" not in tables:
            raise AttributeError(
                f"[module] expected super().__init__() of {type(self).__name__} before "
                f"self.{name} = ... . Call it first in __init__."
            )
        if isinstance(value, Parameter):
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self.register_module(name, value)
        elif name in tables["_parameters"]:
            if value is not None:
                raise TypeError(
                    f"[module] expected a Parameter or None for {name!r}, got "
                    f"{type(value).__name__}. Change elements inside `with trine.no_grad():` by "
                    "copy_, or wrap the tensor in nn.Parameter."
                )
            tables["_parameters"][name] = None
        elif name in tables["_buffers"]:
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(
                    f"[module] expected a tensor or None for the buffer {name!r}, got "
                    f"{type(value).__name__}. Make it a tensor."
                )
            tables["_buffers"][name] = value
        elif name in tables["_modules"] and value is None:
            tables["_modules"][name] = None
        else:
            self._forget(name)
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        tables = self.__dict__
        for table in ("_parameters", "_buffers", "_modules"):
            if name in tables.get(table, ()):
                return tables[table][name]
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        if not self._forget(name):
            object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        own = [*self._parameters, *self._buffers, *self._modules]
        return sorted({*super().__dir__(), *own})

    def _forget(self, name: str) -> bool:
        """Remove a registered name; return whether there was one."""
        found = False
        for table in (self._parameters, self._buffers, self._modules):
            found = name in table or found
            table.pop(name, None)
        self._transient.discard(name)
        return found

    def _check_name(self, name: str, table: Mapping[str, Any]) -> None:
        if not isinstance(name, str) or not name or "." in name:
            raise ValueError(
                f"[module] expected a name without dots, got {name!r}. Dots separate modules in paths."
            )
        if name not in table and hasattr(self, name):
            if name in self.__dict__:
                object.__delattr__(self, name)
            elif not self._forget(name):
                raise ValueError(
                    f"[module] expected a free name, but {type(self).__name__} has a method or "
                    f"attribute {name!r}. Choose another name."
                )

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Register a parameter, or None for one that is left out."""
        self._check_name(name, self._parameters)
        if parameter is not None and not isinstance(parameter, Parameter):
            raise TypeError(
                f"[module] expected a Parameter for {name!r}, got {type(parameter).__name__}. Wrap "
                "the tensor in nn.Parameter."
            )
        self._parameters[name] = parameter

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Register a tensor that belongs to the state but is not learned.

        One that is not persistent moves with the module but stays out of `state_dict`.
        """
        self._check_name(name, self._buffers)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"[module] expected a tensor for the buffer {name!r}, got {type(tensor).__name__}. "
                "Make it one: trine.tensor(x)."
            )
        self._buffers[name] = tensor
        if persistent:
            self._transient.discard(name)
        else:
            self._transient.add(name)

    def register_module(self, name: str, module: Module | None) -> None:
        """Register a child module."""
        self._check_name(name, self._modules)
        if module is not None and not isinstance(module, Module):
            raise TypeError(
                f"[module] expected a Module for {name!r}, got {type(module).__name__}. Write a "
                "subclass of nn.Module."
            )
        self._modules[name] = module
        if module is not None:
            module._settle(self, name)

    add_module = register_module

    # Paths

    def _settle(self, parent: Module, name: str) -> None:
        """Remember where this module hangs; the first place counts for a shared one."""
        holder = self._parent() if self._parent is not None else None
        if holder is None or holder._modules.get(self._name) is not self:
            object.__setattr__(self, "_parent", weakref.ref(parent))
            object.__setattr__(self, "_name", name)

    @property
    def path(self) -> str:
        """The dotted path from the root module, as in `state_dict`; "" for the root itself."""
        names: list[str] = []
        module: Module | None = self
        while module is not None and module._parent is not None:
            parent = module._parent()
            if parent is None or parent._modules.get(module._name) is not module:
                break
            names.append(module._name)
            module = parent
        return ".".join(reversed(names))

    def stream(self, purpose: str) -> int:
        """Return the module's own random stream for a purpose, see `trine.random.stream_id`."""
        return random.stream_id(purpose, self.path)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        for key, value in self.__dict__.items():
            kept = None if key == "_parent" else copy.deepcopy(value, memo)
            object.__setattr__(twin, key, kept)
        for name, child in twin._modules.items():
            if child is not None:
                child._settle(twin, name)
        return twin

    # Running

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output; every subclass defines it."""
        raise NotImplementedError(
            f"[module] expected {type(self).__name__} to define forward(). Write the method."
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for pre_hook in tuple(self._pre_hooks.values()):
            changed = pre_hook(self, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        try:
            result = self.forward(*args, **kwargs)
        except (ValueError, TypeError) as error:
            if not hasattr(error, "__notes__"):  # the innermost module is the one that helps
                error.add_note(f"raised in module {self.path or 'root'!r}: {self._one_line()}")
            raise
        for hook in tuple(self._hooks.values()):
            changed = hook(self, args, result)
            if changed is not None:
                result = changed
        return result

    def register_forward_pre_hook(self, hook: PreHook) -> HookHandle:
        """Call `hook(module, args)` before forward; what it returns replaces the arguments."""
        number = next(self._hook_numbers)
        self._pre_hooks[number] = hook
        return HookHandle(self._pre_hooks, number)

    def register_forward_hook(self, hook: ForwardHook) -> HookHandle:
        """Call `hook(module, args, output)` after forward; what it returns replaces the output."""
        number = next(self._hook_numbers)
        self._hooks[number] = hook
        return HookHandle(self._hooks, number)

    @property
    def has_hooks(self) -> bool:
        """Whether any hook sees this module's calls."""
        return bool(self._pre_hooks or self._hooks)

    # Walking the tree

    def children(self) -> Iterator[Module]:
        """Yield the direct submodules, each once, in the order of definition."""
        for _, module in self.named_children():
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the direct submodules with their names."""
        seen: set[int] = set()
        for name, module in self._modules.items():
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def named_modules(
        self, prefix: str = "", remove_duplicate: bool = True, *, _seen: set[int] | None = None
    ) -> Iterator[tuple[str, Module]]:
        """Yield this module and all below it with their dotted paths, each once."""
        seen = set() if _seen is None else _seen
        if id(self) in seen:
            return
        if remove_duplicate:
            seen.add(id(self))
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                path = f"{prefix}.{name}" if prefix else name
                yield from module.named_modules(path, remove_duplicate, _seen=seen)

    def modules(self) -> Iterator[Module]:
        """Yield this module and all below it, each once."""
        for _, module in self.named_modules():
            yield module

    def _named(
        self, table: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        modules = self.named_modules(prefix, remove_duplicate) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, member in getattr(module, table).items():
                if member is None or (remove_duplicate and id(member) in seen):
                    continue
                seen.add(id(member))
                yield (f"{path}.{name}" if path else name), member

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Yield parameters with their dotted paths in the order of definition, tied ones once."""
        return self._named("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Yield parameters in the order of definition, tied ones once."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield buffers with their dotted paths."""
        return self._named("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Yield buffers."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def get_submodule(self, target: str) -> Module:
        """Return the module at a dotted path; raises AttributeError if there is none."""
        module: Module = self
        for name in target.split(".") if target else ():
            child = module._modules.get(name)
            if child is None:
                raise AttributeError(
                    f"[module] expected a module {target!r}, but {type(module).__name__} has no "
                    f"{name!r}. It has: {', '.join(module._modules) or 'none'}."
                )
            module = child
        return module

    def apply(self, function: Callable[[Module], None]) -> Self:
        """Call a function on every module, children first, e.g. to initialise weights."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    # Modes

    def train(self, mode: bool = True) -> Self:
        """Set training mode here and below: it switches dropout and batch statistics on."""
        for module in self.modules():
            object.__setattr__(module, "training", mode)
        return self

    def eval(self) -> Self:
        """Set evaluation mode here and below."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze (False) or free the parameters; a frozen one loses its gradient."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
            if not requires_grad:
                parameter.grad = None
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients; with `set_to_none=False` fill them with zeros."""
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.backend.assign(parameter.grad.data, 0.0)

    # Moving and state

    def to(
        self,
        backend: str | Backend | npt.DTypeLike | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> Self:
        """Move parameters and buffers to a backend and floats among them to a dtype, in place.

        `to("cupy")`, `to(dtype="float64")`, `to("float64")`. An optimiser follows at its next call,
        its state included. Raises as `get_backend`; TypeError for a dtype that is not a float.
        """
        target, wanted = state.destination(backend, dtype)
        for parameter in self.parameters():
            state.move(parameter, target, wanted)
        for buffer in self.buffers():
            state.move(buffer, target, wanted)
        return self

    def float(self) -> Self:
        """Make all float parameters and buffers float32."""
        return self.to(dtype="float32")

    def double(self) -> Self:
        """Make all float parameters and buffers float64."""
        return self.to(dtype="float64")

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """Return the parameters and persistent buffers by dotted path, as detached views.

        They share memory with the model: copy what shall stay as it is. Tied parameters appear
        under each of their names.
        """
        found: dict[str, Tensor] = {}
        for path, module in self.named_modules(prefix, remove_duplicate=False):
            lead = f"{path}." if path else ""
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    found[lead + name] = parameter.detach()
            for name, buffer in module._buffers.items():
                if buffer is not None and name not in module._transient:
                    found[lead + name] = buffer.detach()
        return found

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor | Array], strict: bool = True
    ) -> LoadResult:
        """Copy values into the parameters and buffers, in the dtype and on the backend they have.

        Raises ValueError that lists missing, unexpected and misshapen names, and TypeError for
        values that are not numbers; nothing is loaded then. Without `strict`, missing and
        unexpected names are only returned.
        """
        missing, unexpected = state.load(self, state_dict, strict)
        return LoadResult(missing, unexpected)

    # Text

    def extra_repr(self) -> str:
        """Return what stands between the brackets of the repr."""
        return ""

    def _one_line(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"

    def __repr__(self) -> str:
        if not self._modules:
            return self._one_line()
        lines = [f"  {line}" for line in self.extra_repr().splitlines()]
        for name, module in self._modules.items():
            body = repr(module).split("\n")
            lines.extend(f"  {line}" for line in [f"({name}): {body[0]}", *body[1:]])
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])
