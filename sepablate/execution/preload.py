"""Imported only by the server that forks workers, before it serves: what every worker needs."""

import signal

import torch._dynamo  # torch imports it, in a second, for the first optimizer of each process

from sepablate.execution import worker

__all__ = ["torch", "worker"]

# After a SIGTERM to everybody (timeout, systemd, a batch system) it must report how workers ended.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
