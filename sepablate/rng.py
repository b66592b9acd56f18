"""Named random streams: the one derivation of a seed from names.

Nothing draws from a state that another draw has moved: removing a component shifts no other draw,
and a run resumed at any step draws what it would have drawn.
"""

import hashlib

import torch


def stream_seed(*stream: object, bits: int = 63) -> int:
    """Return the seed of a stream such as (seed, "augment", step).

    Args:
        stream: what names the stream; joined by slashes and hashed with SHA-256.
        bits: the seed's size. 64 only for initial weights, whose draws would change otherwise.
    """
    text = "/".join(map(str, stream))
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - bits)


def generator(*stream: object, bits: int = 63) -> torch.Generator:
    """Return a generator on the CPU with the seed of a stream."""
    return torch.Generator().manual_seed(stream_seed(*stream, bits=bits))
