"""Stopping on SIGINT and SIGTERM: a flag that the loops look at, so that a run saves first."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

_MESSAGE = "\n{name}: stopping after this step; Ctrl-C again quits at once.\n"


class StopRequest:
    """While active, the first SIGINT or SIGTERM sets `name`; a second SIGINT stops at once.

    Handlers are installed in the main thread only, where Python allows it, and put back at the end.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.name is None:
            self.name = signal.Signals(number).name
            # Python's own streams may be in the middle of a write; this goes past them.
            os.write(2, _MESSAGE.format(name=self.name).encode())
        elif number == signal.SIGINT:
            raise KeyboardInterrupt

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            # None stands for a handler that Python did not install and cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()
