"""Modules: registration, paths, modes, hooks, state, moving, text."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import trine
from trine import Tensor, nn


class Block(nn.Module):
    """Two layers and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.scale = nn.Parameter(trine.ones(1))
        self.register_buffer("shift", trine.zeros(4))
        self.register_buffer("cache", trine.zeros(2), persistent=False)
        self.second = nn.Linear(4, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x) * self.scale + self.shift)


class Tied(nn.Module):
    """Two names for one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3, bias=False)
        self.b = nn.Linear(3, 3, bias=False)
        self.b.weight = self.a.weight


def test_names_come_in_the_order_of_definition() -> None:
    model = nn.Sequential(Block(), nn.ReLU(), Block())
    names = [name for name, _ in model.named_parameters()]
    assert names[:4] == ["0.scale", "0.first.weight", "0.first.bias", "0.second.weight"]
    assert [name for name, _ in model.named_modules()][:3] == ["", "0", "0.first"]
    assert [name for name, _ in model.named_children()] == ["0", "1", "2"]
    assert [name for name, _ in model.named_buffers()][:2] == ["0.shift", "0.cache"]
    assert list(model.state_dict())[:3] == ["0.scale", "0.shift", "0.first.weight"]
    assert "0.cache" not in model.state_dict()


def test_tied_parameters_count_once_and_are_saved_under_both_names() -> None:
    model = Tied()
    assert [name for name, _ in model.named_parameters()] == ["a.weight"]
    both = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    assert both == ["a.weight", "b.weight"]
    assert list(model.state_dict()) == ["a.weight", "b.weight"]
    twin = copy.deepcopy(model)
    assert twin.a.weight is twin.b.weight
    assert twin.a.weight is not model.a.weight


def test_attributes_keep_their_kind() -> None:
    block = Block()
    with pytest.raises(TypeError, match=r"expected a Parameter or None for 'scale', got Tensor"):
        block.scale = trine.ones(1)
    with pytest.raises(TypeError, match="expected a tensor or None for the buffer 'shift'"):
        block.shift = 3
    with pytest.raises(ValueError, match="expected a name without dots"):
        block.register_buffer("a.b", trine.ones(1))
    with pytest.raises(ValueError, match="expected a free name"):
        block.register_parameter("forward", nn.Parameter(trine.ones(1)))
    block.first = nn.Linear(3, 5)
    assert block.state_dict()["first.weight"].shape == (5, 3)
    block.scale = None
    assert "scale" not in block.state_dict()
    block.label = 1
    block.label = nn.ReLU()
    assert "label" in dict(block.named_children())
    del block.label
    with pytest.raises(AttributeError, match="'Block' has no attribute 'label'"):
        _ = block.label


def test_a_module_built_without_super_says_so() -> None:
    class Wrong(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.ReLU()

    with pytest.raises(AttributeError, match=r"expected super\(\).__init__\(\) of Wrong"):
        Wrong()


def test_paths_follow_the_tree_the_first_place_of_a_shared_module_counts() -> None:
    shared = nn.Linear(2, 2)
    body = nn.Sequential(shared, nn.ReLU(), shared)
    assert shared.path == "0"
    model = nn.Sequential(nn.Flatten(), body)
    assert shared.path == "1.0"
    assert model.path == ""
    twin = copy.deepcopy(model)
    assert twin[1][0].path == "1.0"
    del model
    assert shared.path == "0"  # the tree above is gone
    assert twin[1][0].path == "1.0"
    alone = copy.deepcopy(body[0])
    assert alone.path == ""


def test_modes_reach_every_module_and_chain() -> None:
    model = nn.Sequential(Block(), nn.Dropout(0.5))
    assert model.eval() is model
    assert not any(module.training for module in model.modules())
    model.train()
    assert all(module.training for module in model.modules())


def test_apply_visits_children_first() -> None:
    visited: list[str] = []
    nn.Sequential(nn.Linear(1, 1), nn.ReLU()).apply(lambda m: visited.append(type(m).__name__))
    assert visited == ["Linear", "ReLU", "Sequential"]


def test_hooks_see_and_replace_what_passes_until_removed() -> None:
    layer = nn.Identity()
    x = trine.tensor([1.0, -2.0])

    def double(module: nn.Module, args: tuple[Any, ...]) -> Tensor:
        return args[0] * 2

    def negate(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return -output

    before = layer.register_forward_pre_hook(double)
    with layer.register_forward_hook(negate):
        assert layer(x).tolist() == [-2.0, 4.0]
    assert layer(x).tolist() == [2.0, -4.0]
    before.remove()
    before.remove()
    assert layer(x).tolist() == [1.0, -2.0]


def test_requires_grad_freezes_and_zero_grad_clears() -> None:
    block = Block()
    block(trine.ones(2, 3)).sum().backward()
    assert all(p.grad is not None for p in block.parameters())
    block.first.requires_grad_(False)
    assert block.first.weight.grad is None
    block.zero_grad(set_to_none=False)
    assert block.second.weight.grad is not None
    assert np.all(block.second.weight.grad.numpy() == 0)
    block.zero_grad()
    assert block.second.weight.grad is None
    block(trine.ones(2, 3)).sum().backward()
    assert block.first.weight.grad is None


def test_state_is_a_view_and_loads_back_in_the_models_dtype(backend_name: str) -> None:
    source, target = Block(), Block().double()
    state = source.state_dict()
    assert not any(t.requires_grad for t in state.values())
    result = target.load_state_dict(state)
    assert result.missing_keys == []
    weight = target.first.weight.detach()
    assert weight.dtype == np.float64
    np.testing.assert_array_equal(weight.numpy(), state["first.weight"].numpy())
    with trine.no_grad():
        source.first.weight.fill_(7)
    assert np.all(state["first.weight"].numpy() == 7)
    assert not np.any(weight.numpy() == 7)


def test_a_state_that_does_not_fit_is_listed_and_nothing_is_loaded() -> None:
    model = Block()
    before = {name: t.numpy().copy() for name, t in model.state_dict().items()}
    state: dict[str, Any] = {name: value + 1 for name, value in before.items()}
    state["second.weight"] = np.zeros((2, 5), np.float32)
    state["third.weight"] = state.pop("first.bias")
    with pytest.raises(ValueError, match=r"\[load_state_dict\]") as caught:
        model.load_state_dict(state)
    text = str(caught.value)
    assert "missing: first.bias" in text
    assert "unexpected: third.weight" in text
    assert "second.weight: the model has (2, 4), the state (2, 5)" in text
    with pytest.raises(ValueError, match=r"shape of second\.weight"):
        model.load_state_dict(state, strict=False)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])
    del state["second.weight"]
    result = model.load_state_dict(state, strict=False)
    assert result == (["first.bias", "second.weight"], ["third.weight"])
    np.testing.assert_array_equal(model.first.weight.detach().numpy(), before["first.weight"] + 1)


def test_only_numbers_and_mappings_load() -> None:
    model = nn.Linear(1, 1, bias=False)
    with pytest.raises(TypeError, match="expected a mapping of names"):
        model.load_state_dict([1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected numbers for weight"):
        model.load_state_dict({"weight": np.array([["a"]])})


def test_to_moves_values_gradients_and_buffers() -> None:
    model = nn.Sequential(nn.Linear(3, 3, backend="numpy"), nn.BatchNorm1d(3, backend="numpy"))
    weight = model[0].weight
    model(trine.ones(2, 3, backend="numpy")).sum().backward()
    values, gradient = weight.detach().numpy().copy(), weight.grad.numpy().copy()
    assert model.to("numba", dtype="float64") is model
    assert weight is model[0].weight
    assert weight.backend.name == weight.grad.backend.name == "numba"
    assert weight.dtype == weight.grad.dtype == np.float64
    np.testing.assert_array_equal(weight.detach().numpy(), values)
    np.testing.assert_array_equal(weight.grad.numpy(), gradient)
    batch_norm = model[1]
    assert batch_norm.running_mean.dtype == np.float64
    assert batch_norm.num_batches_tracked.dtype == np.int64
    assert batch_norm.num_batches_tracked.backend.name == "numba"
    model.to("float32")
    assert weight.dtype == np.float32
    with pytest.raises(ValueError, match=r"\[to\] expected a backend \(numpy, numba, cupy\)"):
        model.to("nump")
    with pytest.raises(TypeError, match="expected float32 or float64 for a module"):
        model.to(dtype="int64")


def test_to_leaves_nothing_behind() -> None:
    model = nn.Linear(3, 2, backend="numpy")
    before = model.weight.detach()
    loss = model(trine.ones(1, 3, backend="numpy", requires_grad=True)).sum()
    model.to("numba")
    with pytest.raises(trine.GraphError, match="changed in place"):
        loss.backward()
    with trine.no_grad():
        model.weight.fill_(7)
    assert not np.any(before.numpy() == 7)


def test_a_deep_copy_shares_nothing() -> None:
    model = Block()
    twin = copy.deepcopy(model)
    with trine.no_grad():
        twin.scale.fill_(5)
        twin.shift.fill_(5)
    assert model.scale.item() == 1
    assert model.shift.tolist() == [0, 0, 0, 0]


def test_an_error_inside_names_the_module() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(3, 2), nn.ReLU()))
    with pytest.raises(ValueError, match=r"\[linear\]") as caught:
        model(trine.ones(2, 5))
    assert caught.value.__notes__ == [
        "raised in module '1.0': Linear(in_features=3, out_features=2, bias=True)"
    ]


def test_repr_reads_like_pytorchs() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU(), nn.Dropout(0.25)))
    assert repr(model) == (
        "Sequential(\n"
        "  (0): Linear(in_features=2, out_features=3, bias=True)\n"
        "  (1): Sequential(\n"
        "    (0): ReLU()\n"
        "    (1): Dropout(p=0.25)\n"
        "  )\n"
        ")"
    )
    assert repr(nn.Parameter(trine.ones(1, backend="numpy"))) == (
        "Parameter containing:\ntensor([1.], requires_grad=True)"
    )


def test_forward_must_be_defined_and_submodules_are_found_by_path() -> None:
    with pytest.raises(NotImplementedError, match=r"expected Module to define forward\(\)"):
        nn.Module()(1)
    model = nn.Sequential(Block())
    assert model.get_submodule("0.first") is model[0].first
    with pytest.raises(AttributeError, match=r"Block has no 'third'\. It has: first, second"):
        model.get_submodule("0.third")


def test_parameters_are_made_of_float_tensors() -> None:
    with pytest.raises(TypeError, match=r"\[Parameter\] expected a tensor, got list"):
        nn.Parameter([1.0])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="int64"):
        nn.Parameter(trine.tensor([1]))
    with pytest.raises(TypeError, match="expected float32 or float64 parameters, got int64"):
        nn.Linear(2, 2, dtype="int64")
