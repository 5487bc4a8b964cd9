"""Captured steps: the same bytes as the steps themselves, and nothing replayed that must not be."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import trine
import trine.functional as F
from trine import nn, optim
from trine.backends import get_backend, threads
from trine.errors import CaptureError
from trine.kernels import registry
from trine.optim.clip import clip_grad_norm_

BACKENDS = ("numpy", "numba")
BATCH, STEPS = 6, 8


def batches(backend, shape=(1, 12, 12), classes=4, count=STEPS, size=BATCH):
    rng = np.random.default_rng(1)
    return [
        (
            trine.tensor(rng.normal(size=(size, *shape)).astype(np.float32), backend=backend),
            trine.tensor(rng.integers(0, classes, size), backend=backend),
        )
        for _ in range(count)
    ]


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(96, 20), nn.Dropout(0.3),
        nn.Linear(20, 4),
    )  # fmt: skip


OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.05, momentum=0.9),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01),
}


def training(backend, optimizer="sgd", clip=None):
    """A model, its optimiser and a step, always the same."""
    with trine.use(backend):
        trine.seed(3)
        model = convolutional()
        chosen = OPTIMIZERS[optimizer](model.parameters())

    def step(x, y):
        chosen.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        if clip is not None:
            clip_grad_norm_(chosen, clip)
        chosen.step()
        return loss

    return model, chosen, step


def state(model):
    return {name: t.detach().numpy().tobytes() for name, t in model.state_dict().items()}


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_captured_training_is_the_training_itself_byte_for_byte(backend, optimizer, clip):
    model, _, step = training(backend, optimizer, clip)
    plain = [step(*batch).item() for batch in batches(backend)]
    drawn = trine.random.default_generator().state()
    other, _, step = training(backend, optimizer, clip)
    captured = trine.capture(step)
    assert [captured(*batch).item() for batch in batches(backend)] == plain
    assert captured.replays == STEPS - 3
    assert state(other) == state(model)
    assert trine.random.default_generator().state() == drawn


@pytest.mark.parametrize("backend", BACKENDS)
def test_arrays_that_kernels_get_as_copies_are_copied_in_every_replay(backend):
    rng = np.random.default_rng(2)
    inputs = [trine.tensor(rng.normal(size=(5, 3)), backend=backend) for _ in range(6)]

    def step(x):
        return (x * 2).T @ x

    captured = trine.capture(step)
    plain = [step(x).numpy().tobytes() for x in inputs]
    assert [captured(x).numpy().tobytes() for x in inputs] == plain
    assert captured.replays == 3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("draw", [trine.rand, trine.randn])
@pytest.mark.parametrize("backend", BACKENDS)
def test_numbers_drawn_in_a_step_are_new_in_every_replay(backend, draw, dtype):
    def step(x):
        return draw(*x.shape, dtype=x.dtype, backend=x.backend) * x

    x = trine.ones(3, 5, dtype=dtype, backend=backend)
    trine.seed(4)
    plain = [step(x).numpy().tobytes() for _ in range(6)]
    trine.seed(4)
    captured = trine.capture(step)
    assert [captured(x).numpy().tobytes() for _ in range(6)] == plain
    assert captured.replays == 3
    assert len(set(plain)) == 6


@pytest.mark.parametrize("count", [1, 2])
def test_threads_give_the_same_bytes_and_a_new_recording(count):
    before = threads.get_threads()
    _, _, step = training("numba")
    plain = [step(*batch).item() for batch in batches("numba")]
    _, _, step = training("numba")
    captured = trine.capture(step)
    try:
        threads.set_threads(1)
        found = [captured(*batch).item() for batch in batches("numba")[:4]]
        threads.set_threads(count)
        found += [captured(*batch).item() for batch in batches("numba")[4:]]
    finally:
        threads.set_threads(before)
    assert found == plain
    assert captured.replays == (5 if count == 1 else 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_learning_rates_and_loaded_weights_reach_the_replay(backend):
    def run(make):
        model, optimizer, step = training(backend)
        first = {k: v.detach().numpy().copy() for k, v in model.state_dict().items()}
        step = make(step)
        losses = []
        for i, batch in enumerate(batches(backend)):
            if i == 4:
                optimizer.set_lr(0.5)
            if i == 5:
                optimizer.param_groups[0]["lr"] = 0.001
            if i == 6:
                model.load_state_dict({k: trine.tensor(v) for k, v in first.items()})
            losses.append(step(*batch).item())
        return losses, state(model)

    assert run(trine.capture) == run(lambda step: step)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_learning_rate_that_changes_in_every_step_reaches_every_step(backend):
    def run(make):
        model, optimizer, step = training(backend, "adam")
        step = make(step)
        for i, batch in enumerate(batches(backend)):
            optimizer.param_groups[0]["lr"] = 0.01 / (1 + i)
            step(*batch)
        return state(model)

    assert run(trine.capture) == run(lambda step: step)


def test_another_layout_of_the_optimiser_is_recorded_anew():
    def run(make):
        model, _, step = training("numba")
        step = make(step)
        losses = []
        for i, batch in enumerate(batches("numba", count=10)):
            if i == 5:
                model.to("numpy")
                model.to("numba")
            losses.append(step(*batch).item())
        return losses, state(model)

    assert run(trine.capture) == run(lambda step: step)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_smaller_last_batch_runs_as_it_stands(backend):
    def run(make):
        _, _, step = training(backend)
        step = make(step)
        small = [batches(backend, size=2)[0]]
        return [step(*b).item() for b in [*batches(backend), *small, *batches(backend)]], step

    plain, _ = run(lambda step: step)
    found, captured = run(trine.capture)
    assert found == plain
    assert captured.replays == 2 * STEPS - 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_are_the_callers_own(backend):
    _, _, step = training(backend)
    captured = trine.capture(step)
    losses = [captured(*batch) for batch in batches(backend)]
    assert len({loss.item() for loss in losses}) == STEPS


@pytest.mark.parametrize("backend", BACKENDS)
def test_evaluation_of_several_outputs(backend):
    with trine.use(backend):
        model = convolutional().eval()

    @trine.capture
    def outputs(x):
        with trine.no_grad():
            scores = model(x)
            return scores, scores.argmax(1), F.softmax(scores, 1)

    for x, _ in batches(backend):
        scores, best, shares = outputs(x)
        with trine.no_grad():
            assert scores.numpy().tobytes() == model(x).numpy().tobytes()
        assert (best.numpy() == scores.numpy().argmax(1)).all()
        assert shares.numpy().sum(1) == pytest.approx(1)
    assert outputs.captured
    assert outputs.replays == STEPS - 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_labels_are_checked_in_replays_too(backend):
    _, _, step = training(backend)
    captured = trine.capture(step)
    for batch in batches(backend):
        captured(*batch)
    x, y = batches(backend)[0]
    y.data[2] = 4
    with pytest.raises(ValueError, match=r"labels from 0 to 3.*got 4 at \(2,\)"):
        captured(x, y)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_that_reads_numbers_is_refused_after_it_is_done(backend):
    model, _, step = training(backend)

    def reading(x, y):
        loss = step(x, y)
        assert loss.item() > 0
        return loss

    captured = trine.capture(reading)
    captured(*batches(backend)[0])
    with pytest.raises(CaptureError, match=r"\[capture\] expected reading .* reads numbers"):
        captured(*batches(backend)[1])
    other, _, step = training(backend)
    for batch in batches(backend)[:2]:
        step(*batch)
    assert state(other) == state(model)


def test_with_fallback_it_warns_once_and_goes_on():
    _, _, step = training("numba")
    plain = [step(*batch).item() for batch in batches("numba")]
    _, _, step = training("numba")

    @trine.capture(fallback=True)
    def reading(x, y):
        loss = step(x, y)
        loss.item()
        return loss

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [reading(*batch).item() for batch in batches("numba")] == plain
    assert len(caught) == 1
    assert not reading.captured
    assert reading.replays == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_draws_inside_a_step_are_new_in_every_replay(backend):
    """random_uniform is no op of its own: it runs one and goes on in Python."""
    with trine.use(backend):
        captured = trine.capture(lambda x: F.bernoulli(x) + trine.rand(9))
        x = trine.full((9,), 0.5)
        trine.seed(4)
        plain = [(F.bernoulli(x) + trine.rand(9)).numpy() for _ in range(6)]
        trine.seed(4)
        found = [captured(x).numpy() for _ in range(6)]
    assert captured.replays == 3
    assert np.array_equal(found, plain)


@pytest.mark.parametrize("backend", BACKENDS)
def test_transposed_arrays_are_read_anew_in_every_replay(backend):
    with trine.use(backend):
        captured = trine.capture(lambda x: (x + 1.0).T @ x)
        inputs = [trine.full((3, 2), float(k)) for k in range(6)]
        found = [captured(x).numpy() for x in inputs]
    assert captured.replays == 3
    assert np.array_equal(found, [np.full((2, 2), 3.0 * (k + 1) * k) for k in range(6)])


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_python_changes_from_call_to_call_is_found_out(backend):
    """The third call compares; the state is then that of the step itself."""
    calls = []
    with trine.use(backend):
        total = trine.tensor(np.zeros(3, np.float32))

    def step(x):
        calls.append(1)
        total.add_(x * float(len(calls)))

    captured = trine.capture(step)
    with trine.use(backend):
        x = trine.tensor(np.ones(3, np.float32))
    captured(x)
    captured(x)
    with pytest.raises(CaptureError, match="other numbers than the step itself"):
        captured(x)
    assert total.tolist() == [6.0, 6.0, 6.0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_arrays_that_are_not_contiguous_are_copied_anew_in_every_replay(backend):
    weight = trine.tensor(np.ones((1, 3, 1, 2), np.float32), requires_grad=True, backend=backend)

    @trine.capture
    def step(x):
        weight.grad = None
        out = F.conv2d(x.transpose(1, 2).unsqueeze(2), weight)
        out.relu().sum(3).sum().backward()  # the sum's gradient has strides of 0
        return out.detach(), weight.grad

    rng = np.random.default_rng(2)
    for _ in range(5):
        x = rng.normal(size=(2, 5, 3)).astype(np.float32)
        out, grad = step(trine.tensor(x, backend=backend))
        sums = (x[:, :-1] + x[:, 1:]).sum(axis=2)
        np.testing.assert_allclose(out.numpy().reshape(2, 4), sums, rtol=1e-4, atol=1e-5)
        alive = (sums > 0)[..., None]
        expected = np.stack([(x[:, k : k + 4] * alive).sum(axis=(0, 1)) for k in range(2)], axis=1)
        np.testing.assert_allclose(grad.numpy().reshape(3, 2), expected, rtol=1e-4, atol=1e-5)
    assert step.replays == 2


def test_data_made_inside_a_step_is_found_out():
    rng = np.random.default_rng(0)

    def step():
        with trine.use("numba"):
            return trine.tensor(rng.normal(size=4).astype(np.float32)) * 2

    captured = trine.capture(step)
    with trine.use("numba"):
        captured()
        captured()
        with pytest.raises(CaptureError, match="other numbers"):
            captured()


def test_another_choice_of_kernels_is_recorded_anew():
    _, _, step = training("numba")
    captured = trine.capture(step)
    data = batches("numba")
    for batch in data[:5]:
        captured(*batch)
    assert captured.replays == 2
    registry.prefer("conv2d", "taps")
    for batch in data[5:]:
        captured(*batch)
    assert captured.replays == 2
    assert get_backend("numba").ran["conv2d"] == "taps"


def test_a_profile_sees_the_ops():
    _, _, step = training("numba")
    captured = trine.capture(step)
    for batch in batches("numba"):
        captured(*batch)
    with trine.profile() as found:
        captured(*batches("numba")[0])
    assert {"conv2d", "sgd_step"} <= {row.op for row in found.rows()}


def test_weights_that_a_new_optimiser_moves_are_found_again():
    with trine.use("numba"):
        model = nn.Linear(3, 2)
    captured = trine.capture(lambda x: model(x))
    with trine.use("numba"), trine.no_grad():
        x = trine.tensor(np.ones((4, 3), np.float32))
        for _ in range(4):
            captured(x)
        assert captured.replays == 1
        optim.SGD(model.parameters(), lr=0.1)
        model.weight.zero_()
        model.bias.fill_(2.0)
        assert captured(x).tolist() == [[2.0, 2.0]] * 4


def test_arguments_that_require_gradients_are_refused():
    with trine.use("numba"):
        x = trine.tensor([1.0, 2.0], requires_grad=True)
    captured = trine.capture(lambda x: x * 2)
    with pytest.raises(CaptureError, match="requires a gradient"):
        captured(x)


@pytest.mark.parametrize("returns", [False, True])
def test_a_step_without_tensors_is_refused_on_another_backend_than_the_default(returns):
    """Its recording would hold nothing, and every replay would do nothing."""
    with trine.use("numpy"):
        weight = nn.Parameter(trine.ones(3))

    def step():
        weight.mul_(2.0)
        return weight.detach() if returns else None

    step = trine.capture(trine.no_grad()(step))
    with trine.use("numba"):
        step()
        wanted = "returns a tensor of numpy" if returns else "changes nothing on numba"
        with pytest.raises(CaptureError, match=wanted):
            step()
    assert weight.tolist() == [4.0] * 3  # both calls were done, once each
    with trine.use("numpy"):
        again = trine.capture(step.step)
        for _ in range(4):
            again()
        assert again.captured
    assert weight.tolist() == [64.0] * 3


def test_a_captured_step_needs_its_memory_once():
    backend = "numba"
    _, _, step = training(backend)
    data = batches(backend, size=512)
    pool = trine.get_backend(backend).allocator
    pool.trim()
    idle = pool.held_bytes
    for batch in data[:3]:
        step(*batch)
    needed = pool.held_bytes - idle
    assert needed > 500_000

    _, _, step = training(backend)
    pool.trim()
    idle = pool.held_bytes
    captured = trine.capture(step)
    for batch in data:
        captured(*batch)
    assert captured.captured
    assert pool.held_bytes - idle < 0.2 * needed  # the rest is the recording's
    recording = captured._recorder._pool
    assert recording.held_bytes < 1.3 * needed


@pytest.mark.parametrize("backend", BACKENDS)
def test_arrays_that_a_kernel_needs_in_order_are_copied_at_every_replay(backend):
    with trine.use(backend):
        trine.seed(3)
        left, right = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3)
        optimizer = optim.SGD([*left.parameters(), *right.parameters()], lr=0.1)

    @trine.capture
    def step(x, y):
        optimizer.zero_grad()
        # Both gradients that come back are parts of a larger array, repeated over each plane.
        joined = trine.cat([left(x), right(x)], 1)
        loss = F.cross_entropy(joined.mean((2, 3)), y)
        loss.backward()
        optimizer.step()
        return loss

    for batch in batches(backend, classes=8, count=5):
        step(*batch)  # a wrong replay raises CaptureError
    assert step.replays == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_epochs_of_one_whole_and_one_smaller_batch_are_captured(backend):
    """Another shape in between does not start the wait for the recording anew."""
    _, _, step = training(backend)
    whole = batches(backend, count=6)
    smaller = batches(backend, count=6, size=BATCH // 2)
    plain = [step(*batch).item() for pair in zip(whole, smaller, strict=True) for batch in pair]
    _, _, step = training(backend)
    captured = trine.capture(step)
    found = [captured(*batch).item() for pair in zip(whole, smaller, strict=True) for batch in pair]
    assert found == plain
    assert captured.replays > 0
