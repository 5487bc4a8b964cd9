"""Functions of tensors, under PyTorch's names: `import trine.functional as F`.

Each checks its arguments, then runs one op of the backend contract, or a few primitives.
"""

from trine.functional.activation import (
    elu,
    hardtanh,
    identity,
    leaky_relu,
    piecewise_linear,
    relu,
    sigmoid,
    sign,
    silu,
    softplus,
    tanh,
    unit_step,
)
from trine.functional.bernoulli import bernoulli
from trine.functional.conv import conv2d, conv_transpose2d
from trine.functional.cross_entropy import cross_entropy, nll_loss
from trine.functional.density import normal_density
from trine.functional.dropout import dropout
from trine.functional.embedding import embedding
from trine.functional.linear import linear
from trine.functional.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    exponential_loss,
    hinge_loss,
    huber_loss,
    l1_loss,
    log_cosh_loss,
    logistic_loss,
    mse_loss,
    smooth_l1_loss,
    squared_error,
    zero_one_loss,
)
from trine.functional.norm import batch_norm, group_norm, layer_norm, local_response_norm
from trine.functional.padding import pad
from trine.functional.pool import adaptive_avg_pool2d, avg_pool2d, max_pool2d
from trine.functional.recurrent import gru, lstm, rnn
from trine.functional.regions import nms, nms_padded, roi_align, roi_pool
from trine.functional.softmax import log_softmax, softmax

__all__ = [
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "batch_norm",
    "bernoulli",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "conv2d",
    "conv_transpose2d",
    "cross_entropy",
    "dropout",
    "elu",
    "embedding",
    "exponential_loss",
    "group_norm",
    "gru",
    "hardtanh",
    "hinge_loss",
    "huber_loss",
    "identity",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "local_response_norm",
    "log_cosh_loss",
    "log_softmax",
    "logistic_loss",
    "lstm",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "nms",
    "nms_padded",
    "normal_density",
    "pad",
    "piecewise_linear",
    "relu",
    "rnn",
    "roi_align",
    "roi_pool",
    "sigmoid",
    "sign",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softplus",
    "squared_error",
    "tanh",
    "unit_step",
    "zero_one_loss",
]
