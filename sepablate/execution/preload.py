"""Imported only by the server that forks workers, before it serves: what every worker needs."""

import atexit
import os
import signal

import torch._dynamo  # torch imports it, in a second, for the first optimizer of each process

from sepablate.execution import worker

__all__ = ["torch", "worker"]

# After a signal to everybody (timeout, systemd, a batch system, a terminal that is closed) it must
# report how workers ended.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)

# To free all modules at its end would take a second; its workers end as they do.
atexit.register(os._exit, 0)
