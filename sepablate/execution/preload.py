"""What the server that forks the workers imports before it serves; nobody else does."""

import signal

import torch._dynamo  # a second that the first optimiser of each worker would wait for

from sepablate.execution import worker

__all__ = ["torch", "worker"]

# A SIGTERM to everybody (timeout, systemd, a batch system) must leave it to tell how workers ended.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
