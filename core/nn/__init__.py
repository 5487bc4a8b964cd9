"""Modules: layers, containers, losses, initial values, files."""

from trine.nn import init
from trine.nn.activation import (
    ELU,
    Hardtanh,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from trine.nn.containers import Flatten, Identity, ModuleList, Sequential
from trine.nn.conv import Conv2d, ConvTranspose2d
from trine.nn.dropout import Dropout
from trine.nn.embedding import Embedding
from trine.nn.learner import Learner
from trine.nn.linear import Linear
from trine.nn.loss import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    HuberLoss,
    L1Loss,
    MSELoss,
    NLLLoss,
    SmoothL1Loss,
)
from trine.nn.module import Module
from trine.nn.normalization import (
    BatchNorm1d,
    BatchNorm2d,
    GroupNorm,
    LayerNorm,
    LocalResponseNorm,
)
from trine.nn.parameter import Parameter
from trine.nn.pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from trine.nn.recurrent import GRU, LSTM, RNN
from trine.nn.recurrent_cells import GRUCell, LSTMCell, RNNCell
from trine.nn.regions import RoIAlign, RoIPool
from trine.nn.serialization import load_file, save_file
from trine.nn.summary import summary

__all__ = [
    "ELU",
    "GRU",
    "LSTM",
    "RNN",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BCELoss",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv2d",
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "Flatten",
    "GRUCell",
    "GroupNorm",
    "Hardtanh",
    "HuberLoss",
    "Identity",
    "L1Loss",
    "LSTMCell",
    "LayerNorm",
    "LeakyReLU",
    "Learner",
    "Linear",
    "LocalResponseNorm",
    "LogSoftmax",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "ModuleList",
    "NLLLoss",
    "Parameter",
    "RNNCell",
    "ReLU",
    "RoIAlign",
    "RoIPool",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SmoothL1Loss",
    "Softmax",
    "Softplus",
    "Tanh",
    "init",
    "load_file",
    "save_file",
    "summary",
]
