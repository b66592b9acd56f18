"""Curves in MLflow while the runs still train."""

import sys
import threading
from types import TracebackType

from sepablate.tracking import records
from sepablate.tracking.connection import connect, give_up, given_up, one_line, reached
from sepablate.tracking.experiment import Experiment

PATIENCE = 5.0  # seconds that training waits for MLflow: at its end, and never before


class Live:
    """Shows runs while they train, from a thread of its own: training never waits for MLflow.

    A failure is printed once on stderr and tried again; `publish` completes what stays missing. If
    another command has just given up on a server, this one neither asks it nor warns again.
    Start worker processes by spawn or forkserver: a fork would copy a thread's locks.
    """

    def __init__(
        self, studies: list[str], scale: str, run_keys: list[str], period: float = 2.0
    ) -> None:
        self._studies, self._scale, self._period = studies, scale, period
        self._pending = set(run_keys)
        self._experiments: list[Experiment] = []
        self._unfinished = "KILLED"
        self._closing = threading.Event()
        self._may_warn = threading.Semaphore(1)
        self._abandoned = False  # the thread may still wait for an answer that nobody wants
        self._thread = threading.Thread(target=self._follow, name="mlflow", daemon=True)
        self._idle = given_up()
        if not self._idle:
            self._thread.start()

    def close(self, status: str = "KILLED") -> None:
        """Show what is left, and mark with `status` the runs without a result; 5 s at most."""
        self._unfinished = status
        self._closing.set()
        if self._idle:
            return
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._warn(f"no answer in {PATIENCE:.0f} s")
            self._abandoned = True

    def __enter__(self) -> "Live":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _follow(self) -> None:
        closing = False
        while not (closing or self._abandoned):
            self._closing.wait(self._period)
            closing = self._closing.is_set()
            try:
                self._update(closing)
                if not self._abandoned:
                    reached()
            except Exception as error:  # whatever MLflow does, training goes on
                self._experiments = []
                if not self._abandoned:
                    self._warn(error)

    def _update(self, closing: bool) -> None:
        """Log what is new. MLflow is not asked before a run has started."""
        started = [record for key in sorted(self._pending) if (record := records.training(key))]
        if started and not self._experiments:
            client = connect()
            self._experiments = [Experiment(client, name, self._scale) for name in self._studies]
        for record in started:
            for experiment in self._experiments:
                experiment.log(record)
                if closing and record.status == "RUNNING":
                    experiment.stop(record, self._unfinished)
            if record.status != "RUNNING":
                self._pending.remove(record.key)

    def _warn(self, error: object) -> None:
        give_up()
        if self._may_warn.acquire(blocking=False):
            line = f"MLflow: {one_line(error)}; training goes on, `publish` fills the gap"
            print(line, file=sys.stderr, flush=True)
