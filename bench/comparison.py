"""Old against new: which rows became faster or slower by more than the noise.

Times of one run are not independent: a slow phase of the machine lasts for many calls. The
independent observations are the rounds, so the verdict rests on them: where the ranges from p10 to
p90 are apart, or the bootstrap interval of the ratio of the rounds' medians is beyond 5 %, a row
is faster or slower; else it is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trine.bench.files import read_json

THRESHOLD = 0.05
"""Relative difference that is of no interest, however certain."""
RESAMPLES = 2000
CONFIDENCE = 0.99
FEWEST = 4
"""Rounds on both sides below which a bootstrap means nothing."""


@dataclass(frozen=True)
class Verdict:
    """One row, before and after."""

    key: tuple[str, ...]
    """op, shape, dtype, backend, kernel."""
    old: float | None
    new: float | None
    ratio: float | None
    """old / new: above 1 the new one is faster."""
    low: float | None
    high: float | None
    """The interval of the ratio, where rounds allow one."""
    verdict: str
    """ "faster", "slower", "same", "only old", "only new" or "no time"."""


@dataclass(frozen=True)
class Comparison:
    """All rows, and what is wrong with comparing the files at all."""

    verdicts: list[Verdict]
    warnings: list[str]

    def count(self, verdict: str) -> int:
        """Return how many rows have a verdict."""
        return sum(v.verdict == verdict for v in self.verdicts)

    @property
    def geometric_mean(self) -> float | None:
        """The mean ratio of all rows that have one."""
        ratios = [v.ratio for v in self.verdicts if v.ratio is not None]
        return float(np.exp(np.mean(np.log(ratios)))) if ratios else None


def interval(
    old: Sequence[float], new: Sequence[float], seed: int = 0
) -> tuple[float, float] | None:
    """Return the bootstrap interval of median(old) / median(new); None for too few rounds."""
    if min(len(old), len(new)) < FEWEST:
        return None
    rng = np.random.default_rng(seed)
    medians = [
        np.median(rng.choice(np.asarray(side), (RESAMPLES, len(side))), axis=1)
        for side in (old, new)
    ]
    edge = (1 - CONFIDENCE) / 2
    low, high = np.quantile(medians[0] / medians[1], (edge, 1 - edge))
    return float(low), float(high)


def judge(old: dict[str, Any], new: dict[str, Any]) -> tuple[str, tuple[float, float] | None]:
    """Return the verdict on two rows with times, and the interval of their ratio."""
    found = interval(old.get("rounds", ()), new.get("rounds", ()))
    ratio = old["median"] / new["median"]
    is_large = ratio > 1 + THRESHOLD or ratio < 1 / (1 + THRESHOLD)
    apart = new["p90"] < old["p10"] or new["p10"] > old["p90"]
    beyond = found is not None and (found[0] > 1 + THRESHOLD or found[1] < 1 / (1 + THRESHOLD))
    if is_large and (apart or beyond):
        return ("faster" if ratio > 1 else "slower"), found
    return "same", found


def compare(old: dict[str, Any], new: dict[str, Any]) -> Comparison:
    """Compare the contents of two files."""
    rows = [{_key(r): r for r in side["results"]} for side in (old, new)]
    verdicts = []
    for key in dict.fromkeys([*rows[0], *rows[1]]):
        a, b = rows[0].get(key), rows[1].get(key)
        times = [None if r is None else r["median"] for r in (a, b)]
        if a is None or b is None:
            verdicts.append(
                Verdict(key, *times, None, None, None, "only new" if a is None else "only old")
            )
        elif times[0] is None or times[1] is None:
            verdicts.append(Verdict(key, *times, None, None, None, "no time"))
        else:
            verdict, found = judge(a, b)
            low, high = found or (None, None)
            verdicts.append(Verdict(key, *times, times[0] / times[1], low, high, verdict))
    return Comparison(verdicts, _warnings(old, new))


def compare_files(old: str | Path, new: str | Path) -> Comparison:
    """Compare two files of `trine bench --json`; raises as `read_json` does."""
    return compare(read_json(old), read_json(new))


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("op", "shape", "dtype", "backend", "kernel"))


def _warnings(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return differences of machine and setting that no kernel has to answer for."""
    found = []
    for name in ("cpu", "threads", "malloc"):
        a, b = (side["environment"].get(name) for side in (old, new))
        if a is not None and b is not None and a != b:
            found.append(f"{name} differs: {_plain(a)} before, {_plain(b)} now.")
    for dtype, before in (old.get("limits") or {}).get("peak", {}).items():
        now = (new.get("limits") or {}).get("peak", {}).get(dtype)
        if now and abs(now / before - 1) > 0.1:
            found.append(
                f"The machine itself was {now / before:.2f} times as fast as before by its peak in "
                f"{dtype}: compare with care."
            )
    disturbed = sum(bool(r.get("disturbed")) for side in (old, new) for r in side["results"])
    if disturbed:
        found.append(f"{disturbed} row(s) were measured on a busy machine.")
    return found


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return str(value)
