"""The table of systems: what a name stands for, and how to train, check and explain it.

A system enters by `@system(...)` above the function that builds its model, or by `register(...)`
where there is no model to train. The files that do so are listed in FAMILIES and are imported at
the first look-up, so that `import trine.models` costs nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trine.errors import suggest
from trine.models.explanation import Explanation

if TYPE_CHECKING:
    from trine import Tensor
    from trine.data import Splits
    from trine.models.lesson import Pupil
    from trine.nn import Module

FAMILIES = (
    "activations",
    "alexnet",
    "autoencoders",
    "backprop_by_hand",
    "bam",
    "boltzmann",
    "char_models",
    "cnn_003",
    "deep_belief",
    "deep_boltzmann",
    "descent",
    "elman",
    "encoder_decoder",
    "faster_rcnn",
    "formants",
    "fourier",
    "function_nets",
    "gan",
    "googlenet",
    "gradients",
    "hebb",
    "hopfield",
    "hybrid",
    "independent_components",
    "lenet",
    "lenet_1998",
    "little_demon",
    "lstm",
    "memory",
    "mlp",
    "principal_components",
    "rbm",
    "regression",
    "segmentation",
    "signal_flow",
    "single_neuron",
    "text_cnn",
    "threshold_units",
    "two_digit",
    "vae",
    "word_models",
    "xor",
)
"""The modules of this package that register systems."""


@dataclass(frozen=True)
class System:
    """One named system: a model with everything a training run needs, an explanation, or both.

    `data` is the name of a data set or a function that makes one. `loss` takes the model's output
    and the target and returns the scalar to be minimised; `metrics` names those of
    `trine.training`. `optimizer` and `schedule` are names too, with their arguments beside;
    `clip_norm` is the largest norm of the gradient, None for any.
    `stop` names a metric and the value at which training ends early. `expected` gives lower bounds
    for entries of a run's summary, and `explain(backend=, dtype=, **options)` works the example.
    `report` asks `trine train` to print that explanation when the run is over.

    `task` says how the model sees a data set, one of `--data` too: images as their own targets, say.
    `pretrain(model, splits)` goes before a new run's first step, layer-wise training, say.
    `shows(model, splits)` measures what the trained model is for; `trine train` prints it, and
    saves its figures with `--plot`. `reads(model, splits, text)` is what a model of language makes of
    a text, for `trine predict`: the likely symbols and the text with them. Within
    `hold(model, samples)` what a model picks by its numbers stays what it is now, so that finite
    differences can be taken. `pupil` makes the net of an example that has no `build`.
    """

    name: str
    family: str
    year: int
    source: str
    summary: str
    build: Callable[[], Module] | None = None
    data: str | Callable[[], Splits] | None = None
    loss: Callable[..., Any] | None = None
    metrics: tuple[str, ...] = ("accuracy",)
    optimizer: str = "sgd"
    lr: float = 0.01
    optimizer_args: Mapping[str, Any] = field(default_factory=dict)
    schedule: str | None = None
    schedule_args: Mapping[str, Any] = field(default_factory=dict)
    clip_norm: float | None = None
    batch_size: int = 64
    epochs: int = 1
    stop: tuple[str, float] | None = None
    expected: Mapping[str, float] = field(default_factory=dict)
    explain: Callable[..., Explanation] | None = None
    report: bool = False
    task: Callable[[Splits], Splits] | None = None
    pretrain: Callable[[Module, Splits], None] | None = None
    shows: Callable[[Module, Splits], Explanation] | None = None
    reads: Callable[[Module, Splits, str], dict[str, Any]] | None = None
    hold: Callable[[Module, Tensor], AbstractContextManager[None]] | None = None
    pupil: Callable[[], Pupil] | None = None

    @property
    def trainable(self) -> bool:
        """Return whether `trine train` can run it."""
        return self.build is not None

    @property
    def parameters(self) -> int:
        """Return how many numbers the built model learns; 0 without a model."""
        if self.build is None:
            return 0
        trine, init = importlib.import_module("trine"), importlib.import_module("trine.nn").init
        # Drawing a hundred million numbers takes seconds; so does starting a backend to count.
        with trine.use("numpy"), init.skipped():
            model = self.build()
        return sum(_size(p.shape) for p in model.parameters() if p.requires_grad)

    @property
    def data_name(self) -> str | None:
        """Return the data set's name; "made" where the system makes its own."""
        return "made" if callable(self.data) else self.data

    def splits(self, data_dir: str | None = None, name: str | None = None) -> Splits:
        """Return training and test set as the model sees them: the system's own, or a named one.

        Raises ValueError for a system without data, DataError for missing or corrupt files.
        """
        load = importlib.import_module("trine.data").load
        if name is not None:
            splits: Splits = load(name, data_dir=data_dir)
        elif callable(self.data):
            return self.data()
        elif self.data is not None:
            splits = load(self.data, data_dir=data_dir)
        else:
            raise ValueError(
                f"[models] expected a system with data, got {self.name!r}, which is only explained."
                f" Use `trine explain {self.name}`."
            )
        return self.task(splits) if self.task is not None else splits

    def check(self, result: Mapping[str, Any]) -> list[str]:
        """Return what falls short of `expected` in a run's summary; empty when all is reached.

        A run on other data or of fewer epochs than the system's own promises nothing.
        """
        if result.get("data", self.data_name) != self.data_name:
            return []
        if result.get("epochs", self.epochs) < self.epochs:
            return []
        short = []
        for key, bound in self.expected.items():
            value = result.get(key)
            if value is None:
                short.append(f"{self.name}: the run reports no {key}, expected at least {bound:g}")
            elif not value >= bound:
                short.append(f"{self.name}: {key} {value:.4g} is below {bound:g}")
        return short


_systems: dict[str, System] = {}


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size


def register(**fields: Any) -> System:
    """Enter a system by the fields of `System` and return it.

    Raises ValueError for a name that is taken, or a system that can neither train nor explain.
    """
    entry = System(**fields)
    if entry.name in _systems:
        raise ValueError(
            f"[models] expected a new name, but {entry.name!r} is registered. Choose another."
        )
    if entry.build is None and entry.explain is None:
        raise ValueError(
            f"[models] expected {entry.name!r} to have build or explain, got neither. Give one."
        )
    if entry.build is not None and (entry.data is None or entry.loss is None):
        raise ValueError(
            f"[models] expected {entry.name!r} to have data and loss beside build. Give both."
        )
    _systems[entry.name] = entry
    return entry


def system(name: str, **fields: Any) -> Callable[[Callable[[], Module]], Callable[[], Module]]:
    """Return a decorator that registers a model-building function as the system `name`."""

    def enter(build: Callable[[], Module]) -> Callable[[], Module]:
        register(name=name, build=build, **fields)
        return build

    return enter


def _load() -> None:
    for family in FAMILIES:
        importlib.import_module(f"trine.models.{family}")


def names() -> list[str]:
    """Return the names of all systems, sorted."""
    _load()
    return sorted(_systems)


def get(name: str) -> System:
    """Return the system of a name.

    Raises ValueError, proposing the closest name, for an unknown one.
    """
    _load()
    if name not in _systems:
        raise suggest("models", "system", name, _systems)
    return _systems[name]
