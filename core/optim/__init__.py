"""Optimisers on flat buffers, gradient clipping and learning-rate schedules."""

from trine.optim.adagrad import Adagrad
from trine.optim.adam import Adam, AdamW
from trine.optim.clip import clip_grad_norm_
from trine.optim.optimizer import Optimizer
from trine.optim.rmsprop import RMSprop
from trine.optim.schedule import (
    CosineAnnealingLR,
    LambdaLR,
    LinearWarmup,
    Schedule,
    StepLR,
    WarmupCosine,
)
from trine.optim.sgd import SGD
from trine.optim.unit import UnitDescent

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "CosineAnnealingLR",
    "LambdaLR",
    "LinearWarmup",
    "Optimizer",
    "RMSprop",
    "Schedule",
    "StepLR",
    "UnitDescent",
    "WarmupCosine",
    "clip_grad_norm_",
]
