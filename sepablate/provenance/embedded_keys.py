"""The run keys that tables and figures name."""

import csv
import re
from pathlib import Path

from sepablate.errors import UserError

Keys = dict[str, dict[int, str]]  # variant -> seed -> run key


def read_run_keys(path: Path) -> Keys:
    """The runs behind a table.csv, a .png or an .svg; UserError if it names none."""
    if not path.is_file():
        raise UserError(f"{path}: missing")
    read = {".csv": _of_table, ".png": _of_png, ".svg": _of_svg}[path.suffix]
    found = {}
    for words in (entry.split() for entry in read(path).split(";")):
        pairs = [pair.partition(":") for pair in words[1:]]
        if not all(seed.isdecimal() and key for seed, _, key in pairs):
            raise UserError(f"{path}: run keys cannot be read")
        if pairs:
            found[words[0]] = {int(seed): key for seed, _, key in pairs}
    if not found:
        raise UserError(f"{path}: names no run keys")
    return found


def _of_table(path: Path) -> str:
    with path.open(newline="") as file:
        rows = [(row.get("variant"), row.get("run_keys")) for row in csv.DictReader(file)]
    return ";".join(f"{variant} {keys}" for variant, keys in rows if variant and keys)


def _of_png(path: Path) -> str:
    """The text chunk "Description": four bytes of length, then name, zero, text (PNG 11.3.4.3)."""
    data, name = path.read_bytes(), b"tEXtDescription\0"
    at = data.find(name)
    length = int.from_bytes(data[at - 4 : at]) + len(b"tEXt")
    return data[at + len(name) : at + length].decode("latin-1") if at >= 4 else ""


def _of_svg(path: Path) -> str:
    text = path.read_bytes().decode(errors="replace")
    found = re.search(r"<dc:description>(.*?)</dc:description>", text, re.DOTALL)
    return found.group(1) if found else ""
