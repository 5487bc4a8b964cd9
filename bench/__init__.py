"""Benchmarks: kernels are timed only where they are right."""

from trine.bench.harness import BenchResult, run
from trine.bench.report import print_table, write_json

__all__ = ["BenchResult", "print_table", "run", "write_json"]
