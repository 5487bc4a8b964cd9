"""The nets whose training steps are timed on a GPU: one definition for trine and for torch."""

from __future__ import annotations

from typing import Any

from trine.bench.models import Model, follow, images, lenet5, rows, sequences


def mlp(nn: Any) -> Any:
    """784-256-128-10: 235,146 parameters."""
    return nn.Sequential(
        nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def resnet(nn: Any, blocks: int, width: int, stages: int = 3) -> Any:
    """He et al. for images of 32x32: stages of `blocks` blocks; 2 * stages * blocks + 2 layers.

    Where the width doubles the shortcut is a 1x1 convolution with stride 2 (their option B).
    """

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            stride = 1 if inputs == outputs else 2
            self.inner = nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(outputs), nn.ReLU(),
                nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs),
            )  # fmt: skip
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            ) if stride == 2 else nn.Sequential()  # fmt: skip
            self.relu = nn.ReLU()

        def forward(self, x: Any) -> Any:
            return self.relu(self.inner(x) + self.shortcut(x))

    stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
    layers = [stem, nn.BatchNorm2d(width), nn.ReLU()]
    before = width
    for now in (width << stage for stage in range(stages)):
        for _ in range(blocks):
            layers.append(Block(before, now))
            before = now
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


def _adam(optim: Any, parameters: Any) -> Any:
    return optim.Adam(parameters, lr=1e-3)


def _momentum(optim: Any, parameters: Any) -> Any:
    return optim.SGD(parameters, lr=0.01, momentum=0.9)


NETS = {
    "mlp": Model("784-256-128-10, Adam", (128,), mlp, rows(784, 10), _adam),
    "lenet5": Model("LeNet-5, SGD with momentum", (128,), lenet5, images(1, 28), _momentum),
    "lstm": Model(
        "two LSTMs of 256 over 64 steps, Adam", (32,), lambda nn: nn.LSTM(256, 256, 2),
        sequences(64, 256, 256), _adam, follow,
    ),
    "resnet20": Model(
        "ResNet-20 on 32x32, SGD with momentum", (128,), lambda nn: resnet(nn, 3, 16),
        images(3, 32), _momentum,
    ),
}  # fmt: skip
"""By name; the first batch size is that of table T3."""

WIDE_NETS = {
    "resnet18": Model(
        "ResNet-18 on 32x32, SGD with momentum", (512,), lambda nn: resnet(nn, 2, 64, 4),
        images(3, 32), _momentum,
    ),
}  # fmt: skip
"""Nets that keep a device busy, for bfloat16 alone: in float32 a step of one takes too long here."""

DRY_NETS = {
    "mlp": Model(
        "12-8-3", (4,), lambda nn: nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)),
        rows(12, 3), _adam,
    ),
    "resnet8": Model(
        "ResNet-8 of width 2 on 4x4", (2,), lambda nn: resnet(nn, 1, 2), images(3, 4), _momentum
    ),
}  # fmt: skip
