"""GoogLeNet: `googlenet` and `googlenet-bn` for 224x224, `googlenet-small` for 28x28.

An inception module runs four branches over its input and joins their maps:

    1x1      1x1 -> 3x3      1x1 -> 5x5      max 3x3/1 -> 1x1        ReLU behind each convolution

The 1x1 convolutions before the large ones make those affordable. Two auxiliary heads, halfway up,
classify as well and add 0.3 times their costs while training, so that errors reach the lower
layers; they are no part of the net that is used, nor of its 6,998,552 parameters.

`googlenet-bn` is torchvision's form: batch normalisation instead of biases and LRN, and a 3x3
kernel where the paper has 5x5, 6,624,904 parameters under torchvision's names.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import trine
import trine.functional as F
from trine import nn
from trine.models.desk import start_for_relu_
from trine.models.large_images import BATCH, CLASSES, large_images, shows
from trine.models.registry import system

SOURCE = "source notes 001; Szegedy et al., Going deeper with convolutions, 2014"
HEAD_SHARE = 0.3


def convolution(
    channels: int, out: int, kernel: int, *, norm: bool = False, stride: int = 1
) -> nn.Sequential:
    """Return a convolution of the same size (over the stride), with bias or batch norm, and ReLU."""
    conv = nn.Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2, bias=not norm)
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
    if norm:
        layers["bn"] = nn.BatchNorm2d(out, eps=1e-3)
    layers["relu"] = nn.ReLU()
    return nn.Sequential(layers)


class Inception(nn.Module):
    """The four branches over `channels` maps.

    maps: of 1x1, before 3x3, of 3x3, before 5x5, of 5x5, behind the maximum.
    """

    def __init__(self, channels: int, maps: tuple[int, ...], *, norm: bool = False) -> None:
        super().__init__()
        ones, before3, threes, before5, fives, pooled = maps
        self.branch1 = convolution(channels, ones, 1, norm=norm)
        self.branch2 = nn.Sequential(
            convolution(channels, before3, 1, norm=norm), convolution(before3, threes, 3, norm=norm)
        )
        self.branch3 = nn.Sequential(
            convolution(channels, before5, 1, norm=norm),
            convolution(before5, fives, 3 if norm else 5, norm=norm),
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, 1, padding=1), convolution(channels, pooled, 1, norm=norm)
        )
        self.out_channels = ones + threes + fives + pooled

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        """(N, channels, H, W) -> (N, out_channels, H, W)."""
        return trine.cat(
            [b(x) for b in (self.branch1, self.branch2, self.branch3, self.branch4)], 1
        )


class AuxiliaryHead(nn.Module):
    """Average pooling to side x side, 1x1 convolution, two full layers with dropout 0.7 between."""

    def __init__(
        self, channels: int, maps: int, pool: nn.Module, side: int, hidden: int, classes: int,
        *, norm: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.pool = pool
        self.conv = convolution(channels, maps, 1, norm=norm)
        self.fc1 = nn.Linear(maps * side * side, hidden)
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(hidden, classes)

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        """(N, channels, H, W) -> scores (N, classes)."""
        x = self.conv(self.pool(x)).flatten(1)
        return self.fc2(self.dropout(self.fc1(x, "relu")))


class GoogLeNet(nn.Module):
    """Layers one after the other, heads behind some of them, and one full layer on mean maps.

    layers: by name, in order; heads: by the name of the layer that each stands behind.
    """

    def __init__(
        self, layers: Mapping[str, nn.Module], heads: Mapping[str, nn.Module], channels: int,
        classes: int, dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        for name, layer in layers.items():
            self.register_module(name, layer)
        self.order = tuple(layers)
        self.heads = {behind: f"aux{i + 1}" for i, behind in enumerate(heads)}
        for behind, name in self.heads.items():
            self.register_module(name, heads[behind])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: trine.Tensor) -> trine.Tensor | tuple[trine.Tensor, ...]:
        """(N, C, H, W) -> scores (N, classes); in training with heads also theirs, in a tuple."""
        others = []
        for name in self.order:
            x = self.get_submodule(name)(x)
            if self.training and name in self.heads:
                others.append(self.get_submodule(self.heads[name])(x))
        scores = self.fc(self.dropout(self.pool(x).flatten(1)))
        return (scores, *others) if others else scores


def cost_with_heads(
    output: trine.Tensor | tuple[trine.Tensor, ...], target: trine.Tensor
) -> trine.Tensor:
    """Return the cross-entropy of the scores plus 0.3 times that of every auxiliary head."""
    if not isinstance(output, tuple):
        return F.cross_entropy(output, target)
    cost = F.cross_entropy(output[0], target)
    for scores in output[1:]:
        cost = cost + HEAD_SHARE * F.cross_entropy(scores, target)
    return cost


INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""Table 1 of the paper."""


def full(classes: int = CLASSES, *, norm: bool = False, heads: bool = False) -> GoogLeNet:
    """Return the net for images (N, 3, 224, 224), in the paper's form or torchvision's (`norm`)."""

    def shrink(kernel: int = 3) -> nn.Module:
        return nn.MaxPool2d(kernel, 2, ceil_mode=True)

    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv1"] = convolution(3, 64, 7, norm=norm, stride=2)
    layers["maxpool1"] = shrink()
    if not norm:
        layers["norm1"] = nn.LocalResponseNorm(5)
    layers["conv2"] = convolution(64, 64, 1, norm=norm)
    layers["conv3"] = convolution(64, 192, 3, norm=norm)
    if not norm:
        layers["norm2"] = nn.LocalResponseNorm(5)
    layers["maxpool2"] = shrink()
    channels = 192
    for name, maps in INCEPTIONS.items():
        module = Inception(channels, maps, norm=norm)
        layers[f"inception{name}"], channels = module, module.out_channels
        if name in ("3b", "4e"):
            layers[f"maxpool{name[0]}"] = shrink(2 if norm and name == "4e" else 3)
    found = {}
    if heads:  # behind 4a and 4d, on 512 and 528 maps of 14x14
        for name, width in (("inception4a", 512), ("inception4d", 528)):
            pool = nn.AdaptiveAvgPool2d(4) if norm else nn.AvgPool2d(5, 3)
            found[name] = AuxiliaryHead(width, 128, pool, 4, 1024, classes, norm=norm)
    return GoogLeNet(layers, found, channels, classes, dropout=0.2 if norm else 0.4)


@system(
    "googlenet",
    family="convolutional",
    year=2014,
    source=SOURCE,
    summary="22 layers, inception and LRN, 6,998,552 parameters; a few steps on made 224x224",
    data=large_images(224),
    loss=cost_with_heads,
    optimizer="adam",
    lr=1e-3,
    batch_size=BATCH,
    epochs=1,
    shows=shows("googlenet", 6_998_552),
)
def build() -> GoogLeNet:
    """Return the paper's net without its auxiliary heads."""
    return full()


@system(
    "googlenet-bn",
    family="convolutional",
    year=2015,
    source="source notes 001; Ioffe and Szegedy, Batch normalization, 2015; torchvision's googlenet",
    summary="batch norm, 3x3 for 5x5, 6,624,904 parameters; a few steps on made 224x224",
    data=large_images(224),
    loss=cost_with_heads,
    optimizer="adam",
    lr=1e-3,
    batch_size=BATCH,
    epochs=1,
    shows=shows("googlenet-bn", 6_624_904),
)
def build_bn() -> GoogLeNet:
    """Return torchvision's net without its auxiliary heads."""
    return full(norm=True)


@system(
    "googlenet-small",
    family="convolutional",
    year=2014,
    source=SOURCE,
    summary="four inception modules and an auxiliary head for 28x28: digits, Fashion-MNIST",
    data="digits",
    loss=cost_with_heads,
    optimizer="adam",
    lr=2e-3,
    schedule="cosine",
    batch_size=32,
    epochs=12,
    expected={"test_accuracy": 0.97},
)
def small(classes: int = 10) -> GoogLeNet:
    """Return a net of the same parts for images (N, 1, 28, 28)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv1"] = convolution(1, 32, 3)
    layers["norm1"] = nn.LocalResponseNorm(5)
    layers["maxpool1"] = nn.MaxPool2d(3, 2, ceil_mode=True)
    layers["inception3a"] = Inception(32, (16, 16, 24, 4, 8, 8))
    layers["inception3b"] = Inception(56, (24, 24, 32, 4, 8, 8))
    layers["maxpool3"] = nn.MaxPool2d(3, 2, ceil_mode=True)
    layers["inception4a"] = Inception(72, (32, 32, 48, 8, 16, 16))
    layers["inception4b"] = Inception(112, (40, 32, 56, 8, 16, 16))
    heads = {"inception4a": AuxiliaryHead(112, 32, nn.AvgPool2d(3, 2), 3, 64, classes)}
    model = GoogLeNet(layers, heads, 128, classes, dropout=0.2)
    return model.apply(start_for_relu_)
