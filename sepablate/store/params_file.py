"""Read params.yaml, whatever it holds, as a mapping."""

import copy
import functools
import re
import stat
from pathlib import Path
from typing import Any

import yaml

from sepablate.errors import UserError

LARGEST = 1_000_000  # bytes


class _Loader(yaml.SafeLoader):
    """Reads 1e-5 as a number, as YAML 1.2 and DVC do; PyYAML wants a dot in it."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


@functools.lru_cache(8)
def _parse(text: str) -> Any:
    return _Loader(text).get_single_data()


def read_params(path: Path) -> dict[str, Any]:
    """Return the content of params.yaml; UserError unless it is a mapping with scales."""
    try:
        status = path.stat()
        other = not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode)
        if other or status.st_size > LARGEST:
            raise UserError(f"{path}: choose a regular file of at most {LARGEST:,} bytes")
        params = copy.deepcopy(_parse(path.read_text()))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; run from the project's root folder") from None
    except UserError:
        raise
    except Exception as error:  # a tag with a bad value makes the parser raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: not valid YAML: {reason[:300]}") from None
    if not isinstance(params, dict) or not isinstance(params.get("scales"), dict):
        raise UserError(f"{path}: choose a mapping with scale, recipes and scales")
    return params
