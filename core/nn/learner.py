"""Models that learn by a rule of their own: Hebb's, the perceptron's, contrastive divergence."""

from __future__ import annotations

from typing import Any

from trine import autograd
from trine.nn.module import Module
from trine.tensor import Tensor


class Learner(Module):
    """A model that learns by a rule of its own instead of the gradient of a loss.

    The rule writes a direction for every parameter where back-propagation would write a gradient,
    and the optimiser takes the step  p <- p - lr direction.  So rates, schedules, clipping,
    checkpoints, resuming and captured steps are those of every other model; `optim.SGD` with
    lr = 1 is the rule as it stands.
    """

    def learn(self, input: Tensor, target: Tensor) -> Any:
        """Give every parameter its direction for a batch; return the output to be measured.

        Loss and metrics of the run are computed from that output, as from `forward`'s in the
        evaluation, but nothing is learned from them.
        """
        raise NotImplementedError(
            f"[{type(self).__name__}] expected a method learn(input, target), found none. Define "
            "it, or derive from nn.Module to learn by gradients."
        )

    def descend(self, parameter: Tensor, direction: Tensor) -> None:
        """Add to the direction against which the optimiser moves a parameter.

        Raises ValueError for a direction of another shape or backend.
        """
        if direction.shape != parameter.shape or direction.backend is not parameter.backend:
            raise ValueError(
                f"[{type(self).__name__}] expected a direction {parameter.shape} on "
                f"{parameter.backend.name}, got {direction.shape} on {direction.backend.name}. "
                "It must be like the parameter."
            )
        autograd.add_to_grad(parameter, direction)
