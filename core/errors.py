"""The exceptions of Trine and the form of their messages.

Every message reads `[op] what was expected, what came, what to do.` Wrong values and shapes raise
`ValueError`, wrong types and dtypes raise `TypeError`; the classes here are for the rest.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BackendError(RuntimeError):
    """A backend or device is missing, unusable or failed."""


class DataError(ValueError):
    """A data file or data set is missing, corrupt or mislabelled."""


class CheckpointError(ValueError):
    """A checkpoint is missing, corrupt or does not fit the run."""


class GraphError(RuntimeError):
    """Autograd was asked for something that the recorded graph cannot give."""


class CaptureError(RuntimeError):
    """A step cannot be captured, or its replay gave other numbers than the step itself."""


class DivergenceError(ArithmeticError):
    """Training met NaN or Inf; the update was not applied."""


def suggest(op: str, kind: str, name: str, known: Iterable[str]) -> ValueError:
    """Make the error for an unknown name: it proposes the closest known one and lists them all."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(names) if names else "none"
    return ValueError(f"[{op}] expected a known {kind}, got {name!r}.{hint} Known: {listed}.")
