"""RMSprop as TensorFlow has it, which the paper's code used: torch's own differs in three places.

timm's `RMSpropTF` computes the same; this one takes all weights in a few calls of torch, where that
one takes each by itself, 2 ms a step for a small network, and spares every worker timm's import.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class RMSprop(torch.optim.Optimizer):
    """epsilon under the root, squared gradients that start at one, the rate inside the momentum.

    With weight decay added to the gradient, g: s = rho s + (1 - rho) g^2,
    m = momentum m + rate g / sqrt(s + epsilon), w = w - m.
    """

    def __init__(self, groups: Any, lr: float, momentum: float, rho: float, epsilon: float) -> None:
        defaults = {"lr": lr, "momentum": momentum, "rho": rho, "epsilon": epsilon}
        super().__init__(groups, {**defaults, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all weights that have a gradient; closure: what computes them and a loss."""
        with torch.enable_grad():
            loss = closure() if closure is not None else None
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self._step(group, weights, [weight.grad for weight in weights])
        return loss

    def _step(self, group: dict[str, Any], weights: list[Tensor], gradients: Any) -> None:
        if group["weight_decay"]:
            gradients = torch._foreach_add(gradients, weights, alpha=group["weight_decay"])
        squares = self._states(weights, "square", torch.ones_like)
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - group["rho"])
        roots = torch._foreach_add(squares, group["epsilon"])
        torch._foreach_sqrt_(roots)
        moved: Any = torch._foreach_div(gradients, roots)
        torch._foreach_mul_(moved, group["lr"])
        if group["momentum"]:
            past = self._states(weights, "momentum", torch.zeros_like)
            torch._foreach_mul_(past, group["momentum"])
            torch._foreach_add_(past, moved)
            moved = past
        torch._foreach_sub_(weights, moved)

    def _states(
        self, weights: list[Tensor], key: str, begin: Callable[[Tensor], Tensor]
    ) -> list[Tensor]:
        for weight in weights:
            if key not in self.state[weight]:
                self.state[weight][key] = begin(weight)
        return [self.state[weight][key] for weight in weights]
