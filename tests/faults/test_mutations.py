"""Random mutations of every kind of file that a command reads; `make torture` has more."""

import warnings
from pathlib import Path

import pytest
from helpers.mutations import KINDS, attack


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_a_mutated_file_ends_in_one_line_or_is_read_right(
    name: str, tmp_path: Path, data_folder: Path
) -> None:
    warnings.simplefilter("ignore")
    assert attack(name, 8 if name == "weights" else 60, 0, tmp_path / name) == []
