"""Other libraries on the same samples: never dependencies, imported only when they are asked for.

A peer has functions by op name which take a sample and return a call; what it computes is held
against the same float64 reference as the kernels. The modules are named `*_peer`, since a file
named like the library it imports would shadow it.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trine.backends import probe
from trine.backends.cases import Sample
from trine.errors import BackendError, suggest

NAMES = {"torch": "pip install torch", "jax": "pip install jax"}
"""Every peer, and how it is installed."""


@dataclass(frozen=True)
class PeerCall:
    """A call that does the op's work to its end, and how its result becomes the op's outputs.

    `outputs` gives NumPy arrays in the op's order, None for one that the peer does not show.
    """

    call: Callable[[], Any]
    outputs: Callable[[Any], list[Any]]


@dataclass(frozen=True)
class Peer:
    """A library's functions by op name."""

    name: str
    version: str
    functions: Mapping[str, Callable[..., PeerCall | None]]
    set_threads: Callable[[int], None]

    def build(self, op: str, sample: Sample) -> PeerCall | None:
        """Return the call for an op and a sample; None if the peer does not have it."""
        function = self.functions.get(op)
        return None if function is None else function(*sample.args, **sample.attrs)


def load(name: str) -> Peer:
    """Import a peer.

    Our thread layer is loaded first: a process has one OpenMP library, the first one, and torch's own
    would let the threads of both sides spin after each loop and take the CPU from the other side (on
    two virtual cores that shared a real one, 16 ms instead of 0.4 for a small convolution in torch).

    Raises ValueError for an unknown name, BackendError with the remedy if it is not installed.
    """
    if name not in NAMES:
        raise suggest("--vs", "peer", name, NAMES)
    if probe("numba").ok:
        from trine.backends import threads  # noqa: PLC0415  numba comes in when it is asked for

        threads.choose_layer()
    try:
        if importlib.util.find_spec(name) is None:
            raise ImportError(f"No module named {name!r}")
        module = importlib.import_module(f"trine.bench.peers.{name}_peer")
    except ImportError as error:
        raise BackendError(
            f"[--vs] expected {name} to be installed, but it does not import: {error}. To mend it: "
            f"{NAMES[name]}. Peers are no dependencies of trine; leave --vs out to do without."
        ) from error
    peer: Peer = module.PEER
    return peer
