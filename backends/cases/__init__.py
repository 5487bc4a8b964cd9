"""Cases: every op's samples, tolerance and cost; they drive checks, tests and benchmarks."""

from trine.backends.cases.case import OpCase, Rng, Sample, all, get, register

__all__ = ["OpCase", "Rng", "Sample", "all", "get", "register"]
