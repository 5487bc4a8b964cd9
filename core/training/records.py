"""The folder of a run: its configuration, its metrics, its times.

`metrics.jsonl` has one line an epoch and nothing that depends on the clock, so equal runs leave equal
bytes; times go to `timing.jsonl`. `config.json` is written once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trine import atomic
from trine.errors import CheckpointError
from trine.training import checkpoint

CONFIG, METRICS, TIMING = "config.json", "metrics.jsonl", "timing.jsonl"

FREE_TO_CHANGE = ("epochs", "backend", "device")
"""What may differ between a run and its continuation."""


def plain(value: Any) -> Any:
    """Return a value as JSON knows it: tuples as lists, NaN and Inf as null, others as text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def fixed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that a continuation must share."""
    return {k: plain(v) for k, v in config.items() if k not in FREE_TO_CHANGE}


def _flat(config: Any, lead: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(config, Mapping):
        for key, value in config.items():
            yield from _flat(value, f"{lead}.{key}" if lead else str(key))
    else:
        yield lead, config


def check_same(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise CheckpointError naming each difference between the fixed parts of two configurations."""
    old, new = dict(_flat(saved)), dict(_flat(now))
    differences = [
        f"{key} {old.get(key, 'absent')!r}, got {new.get(key, 'absent')!r}"
        for key in sorted(set(old) | set(new))
        if key not in old or key not in new or old[key] != new[key]
    ]
    if differences:
        raise CheckpointError(
            f"[resume] expected the run's {'; '.join(differences)}. Use the same options (epochs may "
            "grow), or start anew with another --out."
        )


class RunFolder:
    """Writes what a run leaves."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.length = 0
        """Bytes of metrics.jsonl that belong to the run so far."""

    def begin(self, config: Mapping[str, Any]) -> None:
        """Start a new run: what an earlier one left in the folder goes.

        The checkpoints go first, so that no kill lets a later start continue the old run.
        """
        atomic.make_folder(self.path)
        for name in (checkpoint.LAST, checkpoint.PREVIOUS, checkpoint.BEST, checkpoint.SNAPSHOT,
                     METRICS, TIMING):  # fmt: skip
            try:
                (self.path / name).unlink(missing_ok=True)
            except OSError as error:
                raise atomic.failed(error, self.path / name) from error
        self._write_config(config)
        atomic.write_text(self.path / METRICS, "")
        self.length = 0

    def _write_config(self, config: Mapping[str, Any]) -> None:
        text = json.dumps(plain(config), indent=2, sort_keys=True) + "\n"
        atomic.write_text(self.path / CONFIG, text)

    def go_on(self, source: Path, length: int, config: Mapping[str, Any]) -> None:
        """Take up the run of the folder `source` where its metrics.jsonl had `length` bytes.

        Raises CheckpointError if that file is shorter.
        """
        old = source / METRICS
        have = old.stat().st_size if old.exists() else 0
        if have < length:
            raise CheckpointError(
                f"[resume] expected at least {length} bytes in {old}, as when the checkpoint was "
                f"written, found {have}. Restore that file, or start anew with another --out."
            )
        atomic.make_folder(self.path)
        if old.exists() and source.resolve() == self.path.resolve():
            atomic.truncate(old, length)
        else:
            lines = old.read_bytes()[:length] if old.exists() else b""
            atomic.write_chunks(self.path / METRICS, [lines])
        if not (self.path / CONFIG).exists():
            self._write_config(config)
        self.length = length

    def epoch(self, metrics: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        """Append an epoch's metrics and times."""
        line = json.dumps(plain(metrics), allow_nan=False) + "\n"
        atomic.append(self.path / METRICS, line)
        self.length += len(line.encode())
        atomic.append(self.path / TIMING, json.dumps(plain(timing), allow_nan=False) + "\n")
