"""Functions of tensors, under PyTorch's names: `import trine.functional as F`.

Each checks its arguments, then runs one op of the backend contract, or a few primitives.
"""

from trine.functional.cross_entropy import cross_entropy, nll_loss
from trine.functional.density import normal_density
from trine.functional.dropout import dropout
from trine.functional.embedding import embedding
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
from trine.functional.norm import batch_norm, group_norm, layer_norm
from trine.functional.recurrent import lstm
from trine.functional.softmax import log_softmax, softmax

__all__ = [
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "dropout",
    "embedding",
    "exponential_loss",
    "group_norm",
    "hinge_loss",
    "huber_loss",
    "l1_loss",
    "layer_norm",
    "log_cosh_loss",
    "log_softmax",
    "logistic_loss",
    "lstm",
    "mse_loss",
    "nll_loss",
    "normal_density",
    "smooth_l1_loss",
    "softmax",
    "squared_error",
    "zero_one_loss",
]
