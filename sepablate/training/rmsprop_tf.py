"""RMSprop as TensorFlow 1 and Keras have it; torch's differs.

timm's `RMSpropTF` computes the same as TensorFlow's. This one takes all weights in a few calls of
torch, where timm's takes one weight at a time, and does not make every worker import timm.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class RMSpropTF(torch.optim.Optimizer):
    """RMSprop with epsilon under the root and the rate in the momentum.

    With weight decay added to the gradient, g: s = rho s + (1 - rho) g^2,
    m = momentum m + lr g / sqrt(s + epsilon), w = w - m.

    Args:
        initial_square: what s starts at: 1 in TensorFlow 1, 0 in Keras.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float,
        rho: float,
        epsilon: float,
        initial_square: float = 1.0,
    ) -> None:
        self._initial_square = initial_square
        defaults = {"lr": lr, "momentum": momentum, "rho": rho, "epsilon": epsilon}
        super().__init__(params, {**defaults, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all weights that have a gradient; `closure` computes them and returns a loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self._step(group, weights, [weight.grad for weight in weights])
        return loss

    def _step(self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor]) -> None:
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
        squares = self._states(weights, "square", self._initial_square)
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - group["rho"])
        roots = torch._foreach_add(squares, group["epsilon"])
        torch._foreach_sqrt_(roots)
        updates = list(torch._foreach_div(gradients, roots))
        torch._foreach_mul_(updates, group["lr"])
        if group["momentum"]:
            momenta = self._states(weights, "momentum", 0.0)
            torch._foreach_mul_(momenta, group["momentum"])
            torch._foreach_add_(momenta, updates)
            updates = momenta
        torch._foreach_sub_(weights, updates)

    def _states(self, weights: list[Tensor], key: str, initial: float) -> list[Tensor]:
        for weight in weights:
            if key not in self.state[weight]:
                self.state[weight][key] = torch.full_like(weight, initial)
        return [self.state[weight][key] for weight in weights]
