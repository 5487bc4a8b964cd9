"""Layers against their functions and formulas; containers; the state of LeNet-5."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

import trine
import trine.functional as F
from trine import Tensor, nn

LENET_STATE = {
    "conv1.weight": (6, 1, 5, 5),
    "conv1.bias": (6,),
    "conv2.weight": (16, 6, 5, 5),
    "conv2.bias": (16,),
    "fc1.weight": (120, 400),
    "fc1.bias": (120,),
    "fc2.weight": (84, 120),
    "fc2.bias": (84,),
    "fc3.weight": (10, 84),
    "fc3.bias": (10,),
}


class LeNet(nn.Module):
    """LeNet-5 with the names that PyTorch's tutorials give its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = x.flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


def normal(*shape: int) -> Tensor:
    return trine.tensor(np.random.default_rng(3).normal(size=shape).astype(np.float32))


def close(a: Tensor, b: Tensor | np.ndarray) -> None:
    wanted = b.detach().numpy() if isinstance(b, Tensor) else b
    np.testing.assert_allclose(a.detach().numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_lenet_has_pytorchs_keys_and_shapes() -> None:
    model = LeNet()
    assert {name: t.shape for name, t in model.state_dict().items()} == LENET_STATE
    assert model(trine.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_summary_counts_every_layer(backend_name: str) -> None:
    model = nn.Sequential(
        OrderedDict(net=LeNet(), head=nn.Sequential(nn.Dropout(0.5), nn.Softmax()))
    )
    model.net.train()
    text = nn.summary(model, (3, 1, 28, 28))
    lines = text.splitlines()
    assert lines[0].split() == ["layer", "output", "shape", "parameters"]
    assert lines[2].split() == ["Sequential", "(3,", "10)"]
    assert lines[4].split() == ["conv1:", "Conv2d", "(3,", "6,", "28,", "28)", "156"]
    assert lines[6].split()[-1] == "5)"  # the pool ran twice: its last output
    assert lines[7].split()[-1] == "48,120"
    assert lines[-1] == ("input (3, 1, 28, 28); 61,706 parameters, 61,706 trainable, 0.24 MiB")
    assert model.head[0].training
    assert not model.net._hooks


def test_summary_of_integers_and_tied_weights() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5, bias=False))
    model[1].weight = model[0].weight
    model[0].weight.requires_grad_(False)
    text = nn.summary(model, (2, 3), dtype="int64")
    assert "20 parameters, 0 trainable" in text
    assert "(2, 3, 5)" in text
    embedding, linear = text.splitlines()[3:5]
    assert embedding.endswith("20")
    assert linear.endswith("5)")  # its weight was counted above


def test_linear_multiplies_by_the_transposed_weight(backend_name: str) -> None:
    layer = nn.Linear(3, 2)
    x = normal(4, 5, 3)
    wanted = x.numpy() @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    close(layer(x), wanted)
    assert "bias" not in nn.Linear(3, 2, bias=False).state_dict()


def test_convolutions_pass_every_option_on(backend_name: str) -> None:
    x = normal(2, 4, 9, 8)
    layer = nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0), dilation=(1, 2), groups=2)
    assert layer.weight.shape == (6, 2, 3, 2)
    wanted = F.conv2d(x, layer.weight, layer.bias, 2, (1, 0), (1, 2), 2)
    close(layer(x), wanted)
    same = nn.Conv2d(4, 3, 3, stride=2, padding="SAME", bias=False)
    assert same(x).shape == (2, 3, 5, 4)
    mirrored = nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect")
    padded = trine.tensor(np.pad(x.numpy(), [(0, 0), (0, 0), (1, 1), (1, 1)], mode="reflect"))
    close(mirrored(x), F.conv2d(padded, mirrored.weight, mirrored.bias))
    back = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
    assert back.weight.shape == (4, 3, 3, 3)
    assert back(x).shape == (2, 6, 18, 16)
    close(back(x), F.conv_transpose2d(x, back.weight, back.bias, 2, 1, 1, 2))


def test_pooling_layers_are_their_functions(backend_name: str) -> None:
    x = normal(2, 3, 7, 7)
    close(nn.MaxPool2d(3, 2, 1)(x), F.max_pool2d(x, 3, 2, 1))
    close(nn.MaxPool2d(2)(x), F.max_pool2d(x, 2, 2))
    close(
        nn.AvgPool2d(3, 2, 1, count_include_pad=False)(x),
        F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    )
    close(nn.AdaptiveAvgPool2d((2, 3))(x), F.adaptive_avg_pool2d(x, (2, 3)))


def test_batch_norm_tracks_what_it_saw(backend_name: str) -> None:
    layer = nn.BatchNorm1d(3)
    x = normal(6, 3) * 2 + 1
    out = layer(x)
    values = x.numpy()
    mean, var = values.mean(0), values.var(0)
    close(out, (values - mean) / np.sqrt(var + 1e-5))
    close(layer.running_mean, 0.1 * mean)
    close(layer.running_var, 0.9 + 0.1 * values.var(0, ddof=1))
    assert layer.num_batches_tracked.item() == 1
    layer.eval()
    fresh = normal(2, 3)
    wanted = (fresh.numpy() - 0.1 * mean) / np.sqrt(0.9 + 0.1 * values.var(0, ddof=1) + 1e-5)
    close(layer(fresh), wanted)
    assert layer.num_batches_tracked.item() == 1
    layer.reset_running_stats()
    assert layer.running_var.tolist() == [1, 1, 1]
    assert layer.num_batches_tracked.item() == 0


def test_batch_norm_without_momentum_averages_all_batches() -> None:
    layer = nn.BatchNorm2d(2, momentum=None)
    batches = [normal(3, 2, 4, 4) * k for k in (1.0, 2.0, 5.0)]
    for batch in batches:
        layer(batch)
    means = [batch.numpy().mean((0, 2, 3)) for batch in batches]
    close(layer.running_mean, np.mean(means, axis=0))
    plain = nn.BatchNorm2d(2, track_running_stats=False, affine=False).eval()
    out = plain(batches[0]).numpy()
    np.testing.assert_allclose(out.mean((0, 2, 3)), 0, atol=1e-6)
    assert plain.state_dict() == {}


def test_batch_norms_know_their_ranks() -> None:
    with pytest.raises(ValueError, match=r"\[BatchNorm2d\] expected input \(N, C, H, W\), got"):
        nn.BatchNorm2d(3)(normal(4, 3))
    with pytest.raises(ValueError, match=r"\[BatchNorm1d\] expected input \(N, C\) or"):
        nn.BatchNorm1d(3)(normal(4, 3, 2, 2))


def test_layer_and_group_norm(backend_name: str) -> None:
    x = normal(2, 4, 3, 3)
    layer = nn.LayerNorm((3, 3))
    mean, var = x.numpy().mean((2, 3), keepdims=True), x.numpy().var((2, 3), keepdims=True)
    close(layer(x), (x.numpy() - mean) / np.sqrt(var + 1e-5))
    assert list(nn.LayerNorm(3, bias=False).state_dict()) == ["weight"]
    group = nn.GroupNorm(2, 4)
    close(group(x), F.group_norm(x, 2, group.weight, group.bias))
    with pytest.raises(ValueError, match="channels that 3 groups divide"):
        nn.GroupNorm(3, 4)


def test_dropout_draws_a_stream_of_its_own_for_each_place(backend_name: str) -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    x = trine.ones(1000)
    trine.seed(5)
    first = model[0](x).numpy()
    trine.seed(5)
    second = model[1](x).numpy()
    trine.seed(5)
    again = model[0](x).numpy()
    assert np.any(first != second)
    np.testing.assert_array_equal(first, again)
    assert np.any(model[0](x).numpy() != first)  # the next draw differs
    assert set(np.unique(first)) == {0.0, 2.0}
    model.eval()
    state = trine.random.default_generator().state()
    assert model(x) is x
    assert trine.random.default_generator().state() == state
    with pytest.raises(ValueError, match=r"\[Dropout\] expected p from 0 to 1, got 1.5"):
        nn.Dropout(1.5)


def test_embedding_keeps_its_padding_row_at_zero(backend_name: str) -> None:
    layer = nn.Embedding(5, 3, padding_idx=-1)
    assert layer.padding_idx == 4
    assert np.all(layer.weight.detach().numpy()[4] == 0)
    out = layer(trine.tensor([[0, 4], [1, 1]]))
    assert out.shape == (2, 2, 3)
    out.sum().backward()
    np.testing.assert_array_equal(layer.weight.grad.numpy().sum(1), [3, 6, 0, 0, 0])


def lstm_by_hand(
    x: np.ndarray, h: np.ndarray, c: np.ndarray, state: dict[str, Tensor], suffix: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    def sigmoid(z: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-z))

    w, u, b, d = (
        state[f"{name}_{suffix}"].numpy()
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    outputs = []
    for row in x:
        i, f, g, o = np.split(row @ w.T + b + h @ u.T + d, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs), h, c


def test_lstm_layers_run_through_time_and_back(backend_name: str) -> None:
    layer = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
    x, h0, c0 = normal(5, 2, 3), normal(4, 2, 4), normal(4, 2, 4) * 0.5
    out, (h_n, c_n) = layer(x, (h0, c0))
    state = layer.state_dict()
    level, h_last, c_last = x.numpy(), [], []
    for depth in range(2):
        directions = []
        for way, suffix in enumerate((f"l{depth}", f"l{depth}_reverse")):
            place = 2 * depth + way
            turned = level[::-1] if way else level
            y, h, c = lstm_by_hand(turned, h0.numpy()[place], c0.numpy()[place], state, suffix)
            directions.append(y[::-1] if way else y)
            h_last.append(h)
            c_last.append(c)
        level = np.concatenate(directions, axis=2)
    close(out, level)
    close(h_n, np.stack(h_last))
    close(c_n, np.stack(c_last))


def test_lstm_keys_layouts_and_bounds() -> None:
    layer = nn.LSTM(3, 4, batch_first=True)
    assert {name: t.shape for name, t in layer.state_dict().items()} == {
        "weight_ih_l0": (16, 3),
        "weight_hh_l0": (16, 4),
        "bias_ih_l0": (16,),
        "bias_hh_l0": (16,),
    }
    assert all(np.abs(p.detach().numpy()).max() <= 0.5 for p in layer.parameters())
    x = normal(2, 5, 3)
    out, (h, c) = layer(x)
    assert out.shape == (2, 5, 4)
    assert h.shape == c.shape == (1, 2, 4)
    single, (h_single, _) = layer(x[0])
    close(single, out[0])
    close(h_single, h[:, 0])
    assert list(nn.LSTM(3, 4, bias=False).state_dict()) == ["weight_ih_l0", "weight_hh_l0"]
    with pytest.raises(ValueError, match=r"expected input \(N, T, I\) or \(T, I\) with I = 3"):
        layer(normal(2, 5, 4))
    with pytest.raises(ValueError, match=r"expected h_0 of shape \(1, 2, 4\), got \(1, 3, 4\)"):
        layer(x, (normal(1, 3, 4), normal(1, 3, 4)))


def test_lstm_drops_between_layers_only_in_training() -> None:
    layer = nn.LSTM(3, 4, num_layers=2, dropout=0.5)
    x = normal(5, 2, 3)
    assert np.any(layer(x)[0].detach().numpy() != layer(x)[0].detach().numpy())
    layer.eval()
    close(layer(x)[0], layer(x)[0])


def test_sequential_is_a_list_and_a_table() -> None:
    model = nn.Sequential(OrderedDict(first=nn.Linear(2, 3), act=nn.Tanh()))
    assert list(model.state_dict()) == ["first.weight", "first.bias"]
    assert model[0] is model.first
    assert model[-1] is model.act
    assert len(model) == 2
    part = model[1:]
    assert isinstance(part, nn.Sequential)
    assert next(iter(part)) is model.act
    model[1] = nn.ReLU()
    assert repr(model.act) == "ReLU()"
    model.append(nn.Linear(3, 1))
    assert model(trine.ones(1, 2)).shape == (1, 1)
    with pytest.raises(IndexError, match="expected an index below 3, got 3"):
        model[3]
    with pytest.raises(TypeError, match="expected a Module for '0', got list"):
        nn.Sequential([nn.ReLU()])  # type: ignore[arg-type]


def test_module_list_registers_what_it_holds() -> None:
    layers = nn.ModuleList([nn.Linear(1, 1) for _ in range(2)])
    layers.append(nn.ReLU())
    layers.insert(0, nn.Tanh())
    assert [type(m).__name__ for m in layers] == ["Tanh", "Linear", "Linear", "ReLU"]
    assert next(iter(layers.state_dict())) == "1.weight"
    assert layers[1].path == "1"
    assert len(layers[1:3]) == 2


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (nn.ReLU(), F.relu),
        (nn.Sigmoid(), F.sigmoid),
        (nn.Tanh(), F.tanh),
        (nn.SiLU(), F.silu),
        (nn.LeakyReLU(0.2), lambda x: F.leaky_relu(x, 0.2)),
        (nn.ELU(0.5), lambda x: F.elu(x, 0.5)),
        (nn.Softplus(2.0), lambda x: F.softplus(x, 2.0)),
        (nn.Hardtanh(-0.5, 0.5), lambda x: F.hardtanh(x, -0.5, 0.5)),
        (nn.Softmax(0), lambda x: F.softmax(x, 0)),
        (nn.LogSoftmax(), lambda x: F.log_softmax(x, -1)),
        (nn.Flatten(0), lambda x: x.reshape(-1)),
        (nn.Identity(3, a=1), lambda x: x),
    ],
    ids=lambda item: repr(item) if isinstance(item, nn.Module) else "",
)
def test_layers_without_parameters(layer: nn.Module, function: object) -> None:
    x = normal(3, 4)
    close(layer(x), function(x))  # type: ignore[operator]


def test_losses_are_their_functions() -> None:
    logits, labels = normal(4, 3), trine.tensor([0, 2, 1, 2])
    weight = trine.tensor([1.0, 2.0, 0.5])
    close(
        nn.CrossEntropyLoss(weight, ignore_index=1, label_smoothing=0.1)(logits, labels),
        F.cross_entropy(logits, labels, weight, ignore_index=1, label_smoothing=0.1),
    )
    log_p = F.log_softmax(logits, 1)
    close(nn.NLLLoss(weight)(log_p, labels), F.cross_entropy(logits, labels, weight))
    x, t = normal(4, 3), normal(4, 3) * 0.3 + 0.2
    gap = x.numpy() - t.numpy()
    close(nn.MSELoss()(x, t), (gap**2).mean())
    close(nn.L1Loss("sum")(x, t), np.abs(gap).sum())
    small = np.abs(gap) < 0.5
    huber = np.where(small, gap**2 / 2, 0.5 * (np.abs(gap) - 0.25))
    close(nn.HuberLoss("none", delta=0.5)(x, t), huber)
    close(nn.SmoothL1Loss("none", beta=0.5)(x, t), huber / 0.5)
    p, y = F.sigmoid(x), trine.tensor((gap > 0).astype(np.float32))
    close(nn.BCELoss()(p, y), nn.BCEWithLogitsLoss()(x, y))
    positive = trine.tensor([2.0, 1.0, 1.0])
    close(
        nn.BCEWithLogitsLoss(pos_weight=positive)(x, y),
        F.binary_cross_entropy_with_logits(x, y, pos_weight=positive),
    )
    assert nn.CrossEntropyLoss(weight).double().weight.dtype == np.float64
    with pytest.raises(ValueError, match="Did you mean 'mean'"):
        nn.MSELoss("meen")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.Linear(0, 3), r"\[Linear\] expected in_features >= 1, got 0"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "channels that 2 groups divide, got 3 in"),
        (lambda: nn.Conv2d(1, 1, (3, 3, 3)), "expected kernel_size as an int >= 1 or two"),
        (lambda: nn.Conv2d(1, 1, 3, stride=0), "expected stride as an int >= 1"),
        (lambda: nn.Conv2d(1, 1, 3, padding="sam"), "Did you mean 'same'"),
        (lambda: nn.Conv2d(1, 1, 3, padding_mode="wrap"), "padding_mode"),  # type: ignore[arg-type]
        (lambda: nn.Embedding(3, 2, padding_idx=3), "expected padding_idx below 3, got 3"),
        (lambda: nn.LSTM(3, 0), "expected hidden_size >= 1"),
        (lambda: nn.AdaptiveAvgPool2d(0), "expected output_size as an int >= 1"),
    ],
)
def test_wrong_sizes_are_refused_when_a_layer_is_built(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()  # type: ignore[operator]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid, nn.Tanh])
def test_a_sequence_fuses_activations_unless_hooks_watch(activation) -> None:
    def build() -> nn.Sequential:
        trine.seed(1)
        return nn.Sequential(
            nn.Conv2d(1, 3, 3), activation(), nn.Flatten(), nn.Linear(12, 5), activation()
        )

    fused, watched = build(), build()
    seen = []
    for layer in (watched[0], watched[3]):
        layer.register_forward_hook(lambda module, args, out: seen.append(out))
    x = normal(2, 1, 4, 4)
    backend = x.backend
    backend.ran.clear()
    out = fused(x)
    name = activation.__name__.lower()
    assert name not in backend.ran or backend.name == "numpy"  # there the layer's own body calls it
    expected = watched(x)
    close(out, expected)
    close(getattr(seen[1], name)(), expected)
    out.sum().backward()
    expected.sum().backward()
    for one, other in zip(fused.parameters(), watched.parameters(), strict=True):
        close(one.grad, other.grad)


def test_a_subclass_with_a_forward_of_its_own_is_not_fused() -> None:
    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * 2

    layer = Doubled(3, 2)
    x = normal(4, 3)
    close(nn.Sequential(layer, nn.ReLU())(x), F.relu(layer(x)))
