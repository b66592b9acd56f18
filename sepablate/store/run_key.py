"""The name of a run: a hash of everything that can change its numbers."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# What a config.json says beside what decides the numbers of one run.
NOT_IN_KEY = (
    "scale",
    "seeds",
    "workers",
    "learning_rates",
    "learning_rate_trials",
    "label",
    "run_keys",
)


def run_key(config: Mapping[str, Any], seed: int) -> str:
    """The key of the run of a resolved config with a seed: 16 hexadecimal digits."""
    decides = {key: value for key, value in config.items() if key not in NOT_IN_KEY}
    text = json.dumps({**decides, "seed": seed}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
