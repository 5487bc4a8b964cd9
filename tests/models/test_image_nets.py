"""AlexNet and GoogLeNet: the published sizes, the parts, the auxiliary heads, and small ones' learning."""

from __future__ import annotations

import math

import numpy as np
import pytest

import trine
import trine.functional as F
from trine import models, nn
from trine.models import alexnet, googlenet
from trine.models.googlenet import HEAD_SHARE, Inception, cost_with_heads
from trine.nn import init
from trine.training.metrics import accuracy


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("alexnet", 60_965_224),
        ("alexnet-onetower", 61_100_840),
        ("googlenet", 6_998_552),
        ("googlenet-bn", 6_624_904),
    ],
)
def test_published_sizes(name: str, parameters: int) -> None:
    with trine.use("numpy"):
        assert models.get(name).parameters == parameters


@pytest.mark.parametrize(("norm", "parameters"), [(False, 13_378_280), (True, 13_004_888)])
def test_sizes_with_auxiliary_heads(norm: bool, parameters: int) -> None:
    with trine.use("numpy"), init.skipped():
        assert count(googlenet.full(norm=norm, heads=True)) == parameters


def test_parameters_bear_torchvisions_names() -> None:
    with trine.use("numpy"), init.skipped():
        tower = set(dict(alexnet.one_tower().named_parameters()))
        normed = set(dict(googlenet.full(norm=True, heads=True).named_parameters()))
    assert {
        "features.0.weight",
        "features.10.bias",
        "classifier.1.weight",
        "classifier.6.bias",
    } <= tower
    assert {
        "conv1.conv.weight", "conv3.bn.weight", "inception3a.branch1.conv.weight",
        "inception5b.branch2.1.bn.bias", "inception4e.branch4.1.conv.weight", "aux1.conv.bn.weight",
        "aux2.fc2.weight", "fc.bias",
    } <= normed  # fmt: skip
    assert len(tower) == 16
    assert "inception3a.branch1.conv.bias" not in normed


def shapes_of(model: nn.Module, names: list[str], size: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Run a model on zeros and return the shapes that leave the named layers."""
    found: dict[str, tuple[int, ...]] = {}
    for name in names:
        model.get_submodule(name).register_forward_hook(
            lambda module, args, out, name=name: found.__setitem__(name, out.shape)
        )
    with trine.no_grad():
        model(trine.zeros(*size))
    return [found[name] for name in names]


def test_alexnets_maps_have_the_papers_sizes() -> None:
    with trine.use("numba"), init.skipped():
        model = alexnet.two_groups().eval()
        names = [f"features.{i}" for i in (0, 3, 4, 7, 8, 10, 12, 14)]
        found = shapes_of(model, names, (1, 3, 227, 227))
    assert [shape[1:3] for shape in found] == [
        (96, 55), (96, 27), (256, 27), (256, 13), (384, 13), (384, 13), (256, 13), (256, 6),
    ]  # fmt: skip


def test_googlenets_maps_have_the_papers_sizes() -> None:
    with trine.use("numba"), init.skipped():
        model = googlenet.full(heads=True)  # in training: the heads must fit, too
        names = ["conv1", "maxpool1", "conv3", "maxpool2", "inception3b", "inception4a",
                 "inception4d", "inception4e", "inception5b", "aux1.pool", "aux2.pool"]  # fmt: skip
        found = shapes_of(model, names, (1, 3, 224, 224))
    assert [shape[1:3] for shape in found] == [
        (64, 112), (64, 56), (192, 56), (192, 28), (480, 28), (512, 14), (528, 14), (832, 14),
        (1024, 7), (512, 4), (528, 4),
    ]  # fmt: skip


def test_groups_separate_alexnets_halves(backend_name: str) -> None:
    layer = alexnet.small().features[4]
    x = np.random.default_rng(0).normal(size=(1, 24, 5, 5)).astype(np.float32)
    other = x.copy()
    other[:, :12] += 1.0
    moved = layer(trine.tensor(x)).detach().numpy() != layer(trine.tensor(other)).detach().numpy()
    assert moved[:, :24].all()
    assert not moved[:, 24:].any()


def test_response_norm_is_the_papers_formula(backend_name: str) -> None:
    a = 10 * np.random.default_rng(0).normal(size=(1, 7, 1, 1)).astype(np.float32)
    found = alexnet.response_norm()(trine.tensor(a)).numpy()
    for i in range(7):
        near = a[0, max(0, i - 2) : i + 3, 0, 0]
        expected = a[0, i, 0, 0] / (2 + 1e-4 * (near**2).sum()) ** 0.75
        assert found[0, i, 0, 0] == pytest.approx(expected, rel=1e-5)


def test_inception_joins_four_branches(backend_name: str) -> None:
    module = Inception(3, (2, 3, 4, 5, 6, 7))
    out = module(trine.tensor(np.random.default_rng(0).random((2, 3, 8, 8), dtype=np.float32)))
    assert out.shape == (2, 2 + 4 + 6 + 7, 8, 8)
    assert module.out_channels == 19
    five = module.branch3.get_submodule("1.conv")
    assert isinstance(five, nn.Conv2d)
    assert five.kernel_size == (5, 5)


def test_heads_learn_in_training_and_are_silent_in_evaluation(backend_name: str) -> None:
    model = googlenet.small()
    x = trine.tensor(np.random.default_rng(0).random((4, 1, 28, 28), dtype=np.float32))
    target = trine.tensor(np.array([1, 2, 3, 4]))
    output = model(x)
    assert isinstance(output, tuple)
    cost = cost_with_heads(output, target)
    parts = [F.cross_entropy(scores, target).item() for scores in output]
    assert cost.item() == pytest.approx(parts[0] + HEAD_SHARE * parts[1], rel=1e-6)
    cost.backward()
    gradient = model.get_submodule("aux1").fc2.weight.grad
    assert gradient is not None
    assert float(np.abs(gradient.numpy()).max()) > 0
    silent = model.eval()(x)
    assert isinstance(silent, trine.Tensor)
    assert cost_with_heads(silent, target).item() == F.cross_entropy(silent, target).item()


def test_a_head_reaches_no_layer_above_it() -> None:
    with trine.use("numpy"):
        model = googlenet.small()
        x = trine.tensor(np.random.default_rng(0).random((2, 1, 28, 28), dtype=np.float32))
        F.cross_entropy(model(x)[1], trine.tensor(np.array([0, 1]))).backward()
        reached = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
    assert reached == {"conv1", "inception3a", "inception3b", "inception4a", "aux1"}


def test_accuracy_judges_the_first_of_several_outputs() -> None:
    with trine.use("numpy"):
        scores, other = trine.tensor([[0.0, 1.0], [1.0, 0.0]]), trine.tensor([[1.0, 0.0]] * 2)
        right, number = accuracy((scores, other), trine.tensor([1, 0]))
    assert (right.item(), number) == (2, 2)


def test_skipped_initialisation_leaves_zeros_and_draws_nothing() -> None:
    with trine.use("numpy"):
        before = trine.random.default_generator().state()
        with init.skipped():
            layer = nn.Linear(3, 4)
        assert trine.random.default_generator().state() == before
        assert not layer.weight.detach().numpy().any()
        assert nn.Linear(3, 4).weight.detach().numpy().any()


def test_guessing_among_a_thousand_classes_costs_ln_1000() -> None:
    with trine.use("numpy"):
        cost = F.cross_entropy(trine.zeros(2, 1000), trine.tensor([3, 7])).item()
    assert cost == pytest.approx(math.log(1000), rel=1e-6)
