"""Which module runs, for those who watch what happens inside a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from trine.nn.module import Module


@contextmanager
def running(model: Module) -> Iterator[list[str]]:
    """Yield a list that holds, inside the block, the modules that run just now, the innermost last.

    Each is its path in the model and its kind, such as `head.0 (Linear)`; the model itself its kind.
    """
    stack: list[str] = []
    with ExitStack() as hooks:
        for path, module in model.named_modules():
            label = f"{path} ({type(module).__name__})" if path else type(module).__name__

            def enter(module: Module, args: Any, label: str = label) -> None:
                stack.append(label)

            def leave(module: Module, args: Any, output: Any) -> None:
                stack.pop()

            hooks.callback(module.register_forward_pre_hook(enter).remove)
            hooks.callback(module.register_forward_hook(leave).remove)
        yield stack
