"""The run key: a hash of everything that can change a run's numbers."""

import hashlib
import json
from collections.abc import Mapping

# What a config.json says in addition to what decides the numbers of one run.
NOT_IN_KEY = (
    "scale",
    "seeds",
    "workers",
    "learning_rates",
    "learning_rate_trials",
    "constant_scores",
    "label",
    "run_keys",
)


def run_key(config: Mapping[str, object], seed: int) -> str:
    """Return the key of a resolved config's run with a seed: 16 hexadecimal digits."""
    decides = {key: value for key, value in config.items() if key not in NOT_IN_KEY}
    text = json.dumps({**decides, "seed": seed}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
