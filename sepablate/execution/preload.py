"""Imported only by the server that forks workers, before it serves: what every worker needs."""

import atexit
import gc
import os
import signal
import sys

from sepablate.execution import process_lifetime

process_lifetime.be_killed_first()
gc.disable()  # collections take a fifth of the time of the imports

import torch._dynamo  # noqa: E402 (torch imports it, in a second, for each first optimizer)

from sepablate.execution import worker  # noqa: E402

__all__ = ["torch", "worker"]

# After a signal to everybody (timeout, systemd, a batch system, a terminal that is closed) it must
# report how workers ended.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _end() -> None:
    """End without freeing all modules, which would take a second; a worker ends so as well."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(0)


atexit.register(_end)
gc.freeze()
gc.enable()
