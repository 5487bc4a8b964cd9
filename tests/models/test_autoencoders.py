"""Autoencoders lose less than PCA at the same code size; a stack is pre-trained layer by layer."""

from __future__ import annotations

import numpy as np
import pytest

import trine
from trine import models
from trine.data import ArrayDataset, Splits
from trine.models.autoencoders import (
    Deconvolutional,
    Deep,
    Layer,
    Stacked,
    cost,
    pca_reconstructions,
    pretrain,
    show_deconv,
    show_deep,
    show_stacked,
)
from trine.models.desk import fit, half_squared_error, values
from trine.models.principal_components import flat

SMALL = (8 * 8, 128, 32, 3)


@pytest.fixture(scope="module")
def digits() -> Splits:
    return models.get("autoencoder").splits()


def test_samples_are_their_own_targets(digits: Splits) -> None:
    assert digits.train.x.shape == (1438, 1, 28, 28)
    assert np.array_equal(digits.test.x, digits.test.y)
    assert digits.num_classes is None


def test_the_deep_one_beats_pca(scanned: Splits, backend_name: str) -> None:
    model = Deep(SMALL, "relu").to(backend_name)
    assert show_deep(model, scanned).failures()
    fit(model, scanned.train, half_squared_error, lr=5e-3, epochs=20)
    assert show_deep(model, scanned).failures() == []


def test_pca_is_the_best_linear_code(scanned: Splits) -> None:
    x = flat(scanned.test.x)
    errors = [np.mean((pca_reconstructions(scanned, d) - x) ** 2) for d in (0, 4, 20, 64)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-12
    mean = flat(scanned.train.x).mean(axis=0)
    assert errors[0] == pytest.approx(np.mean((mean - x) ** 2))


def test_pretraining_gives_the_stack_a_start(scanned: Splits, backend_name: str) -> None:
    x = scanned.train.x
    stack, rival = (Stacked(SMALL).to(backend_name) for _ in range(2))
    pretrain(stack, scanned, epochs=12)
    assert values(stack.after).item() == pytest.approx(cost(stack, x), rel=1e-5)
    assert values(stack.after).item() < 0.8 * values(stack.before).item()
    for model in (stack, rival):
        fit(model, scanned.train, half_squared_error, lr=5e-3, epochs=12)
    assert cost(stack, x) < 0.9 * cost(rival, x)
    note = show_stacked(stack, scanned)
    assert note.failures() == []
    assert show_stacked(rival, scanned).failures()  # it was never pre-trained


def test_pretraining_trains_each_layer_on_the_codes_below(backend_name: str) -> None:
    """Zero epochs copy the layers as they were drawn, which shows what goes where."""
    stack = Stacked((4, 3, 2)).to(backend_name)
    x = np.linspace(0.0, 1.0, 32, dtype=np.float32).reshape(8, 1, 2, 2)
    data = ArrayDataset(x, x)
    trine.seed(5)
    pretrain(stack, Splits("-", data, data), epochs=0)
    trine.seed(5)
    first, second = Layer(4, 3, False), Layer(3, 2, True)
    for kept, drawn in (
        (stack.encoder[0], first.down), (stack.decoder[1], first.up),
        (stack.encoder[1], second.down), (stack.decoder[0], second.up),
    ):  # fmt: skip
        assert np.array_equal(values(kept.weight), values(drawn.weight))
    code = second.encode(first.encode(trine.tensor(x).flatten(1)))
    assert np.array_equal(values(stack.encode(trine.tensor(x))), values(code))


def test_convolution_and_deconvolution_beat_pca(scanned: Splits, backend_name: str) -> None:
    """On 8x8 pixels, a code of 3: C / C of PCA was 0.77 and 0.78 for two seeds."""
    model = Deconvolutional(3, side=8).to(backend_name)
    assert show_deconv(model, scanned).failures()
    fit(model, scanned.train, half_squared_error, lr=2e-2, epochs=24)
    assert show_deconv(model, scanned).failures() == []


def test_sizes(digits: Splits) -> None:
    with pytest.raises(ValueError, match=r"\[deconv-autoencoder\] expected images whose side"):
        Deconvolutional(3, side=6)
    assert models.get("autoencoder").parameters == 436_632
    assert models.get("stacked-autoencoder").parameters == 436_632
    with trine.use("numpy"):
        model, x = Deconvolutional(8), trine.tensor(digits.test.x[:2])
        assert model.encode(x).shape == (2, 8)
        assert model(x).shape == x.shape
        assert Deep((784, 16, 2), "relu").encode(x).shape == (2, 2)
