"""A pytest plugin for runs with a mutant: kernels that do not end are stopped early, memory is bounded."""

from __future__ import annotations

import resource

from trine.kernels.cuda import emulator

SECONDS_OF_A_LAUNCH = 20.0
ACCESSES_OF_A_LAUNCH = 200_000_000
BYTES = 8 * 2**30


def pytest_configure() -> None:
    """Bound what a kernel and the process may take; a test that asks for more fails."""
    emulator.configure(seconds_budget=SECONDS_OF_A_LAUNCH, access_budget=ACCESSES_OF_A_LAUNCH)
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
