"""Monitors of runs for tests."""

from collections.abc import Callable

from sepablate.training.engine import Monitor
from sepablate.training.step import TrainState


class StopAfterEachStep(Monitor):
    """Interrupts a run after every step."""

    def should_stop(self) -> bool:
        return True


class CallAfterEachStep(Monitor):
    """Calls a function with the state after every step."""

    def __init__(self, function: Callable[[TrainState], object]) -> None:
        self.on_step = function  # type: ignore[method-assign, assignment]
