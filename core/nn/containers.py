"""Modules that hold modules, and those that only change shapes."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any, Self, overload

from trine.nn.activation import ReLU, Sigmoid, Tanh
from trine.nn.conv import Conv2d
from trine.nn.linear import Linear
from trine.nn.module import Module
from trine.tensor import Tensor


class _Indexed(Module):
    """Children under the names "0", "1", ..., or names of their own, found by position."""

    def _at(self, index: int) -> str:
        names = list(self._modules)
        position = operator.index(index)
        if not -len(names) <= position < len(names):
            raise IndexError(
                f"[{type(self).__name__}] expected an index below {len(names)}, got {index}."
            )
        return names[position]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter([module for module in self._modules.values() if module is not None])

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Module | Self:
        if isinstance(index, slice):
            return self._slice(index)
        module = self._modules[self._at(index)]
        assert module is not None
        return module

    def _slice(self, index: slice) -> Self:
        raise NotImplementedError

    def __setitem__(self, index: int, module: Module) -> None:
        self.register_module(self._at(index), module)

    def append(self, module: Module) -> Self:
        """Add a module at the end."""
        self.register_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add modules at the end."""
        for module in modules:
            self.append(module)
        return self


FUSING = (Linear, Conv2d)
"""Layers that can apply the activation behind them to their own results: one op less."""
FUSED = {ReLU: "relu", Sigmoid: "sigmoid", Tanh: "tanh"}
"""Those activations, by the names that the layers know."""


class Sequential(_Indexed):
    """Modules one after the other: each takes what the one before it returns.

    Takes the modules themselves, named "0", "1", ..., or an OrderedDict of names to modules. Can be
    indexed by position, sliced, and extended. An activation right behind a full layer or a
    convolution is computed in that layer's op, unless either has hooks, which see every result.
    """

    def __init__(self, *modules: Module | OrderedDict[str, Module]) -> None:
        super().__init__()
        named: Iterable[tuple[str, Any]] = ((str(i), module) for i, module in enumerate(modules))
        if len(modules) == 1 and isinstance(modules[0], dict):
            named = modules[0].items()
        for name, module in named:
            self.register_module(name, module)

    def _slice(self, index: slice) -> Self:
        names = list(self._modules)[index]
        return type(self)(OrderedDict((name, self.get_submodule(name)) for name in names))

    def forward(self, input: Any) -> Any:
        """Run the modules in order."""
        modules = iter(self)
        module = next(modules, None)
        while module is not None:
            following = next(modules, None)
            if following is not None and _fuses(module, following):
                input = module(input, FUSED[type(following)])
                following = next(modules, None)
            else:
                input = module(input)
            module = following
        return input


def _fuses(layer: Module, activation: Module) -> bool:
    """Return whether a layer can stand for itself and the activation behind it."""
    return (
        type(activation) in FUSED
        and type(layer) in FUSING  # a subclass may have a forward of its own
        and not (layer.has_hooks or activation.has_hooks)
    )


class ModuleList(_Indexed):
    """A list of modules whose parameters are registered; it is not called itself."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def _slice(self, index: slice) -> Self:
        return type(self)(list(self)[index])

    def insert(self, index: int, module: Module) -> None:
        """Put a module before a position; those behind move up by one."""
        modules = list(self)
        modules.insert(index, module)
        self._modules.clear()
        self.extend(modules)


class Identity(Module):
    """Returns its input; takes and ignores any arguments, so that it can stand in for a layer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        """Return the input."""
        return input


class Flatten(Module):
    """Joins the axes start_dim to end_dim; by default all but the batch."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C H W)."""
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """The axes that are joined."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
