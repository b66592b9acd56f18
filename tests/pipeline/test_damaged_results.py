"""A result file with other content is named in one line; a bug shows its traceback."""

import pandas as pd
import pytest
from helpers.published import FILES, TINY, current, made, without_runs

from sepablate.analysis import effects, summary_table
from sepablate.errors import UserError
from sepablate.provenance.embedded_keys import read_run_keys
from sepablate.provenance.verify import verify
from sepablate.report import manifest
from sepablate.store.run_files import read_run
from sepablate.tracking import verdicts

__all__ = ["current", "made"]
pytestmark = pytest.mark.usefixtures("current")
STUDY = TINY / "residual_connections"
GARBAGE = (b"", b"\xff\xfe\x00", b"[1, {}]", b'{"a": []}', b"a,b\n1\n2,3,4\n", b"<svg>")


@pytest.mark.parametrize("name", FILES)
def test_verify_names_a_file_with_other_content(name: str) -> None:
    without_runs()
    for content in GARBAGE:
        (TINY / name).write_bytes(content)
        lines = verify("tiny").wrong
        assert any(str(TINY / name) in line for line in lines), content
        assert not any("\n" in line for line in lines), content


@pytest.mark.parametrize("content", GARBAGE)
def test_verify_names_a_run_file_with_other_content(content: bytes) -> None:
    listing = TINY / "controls_digests.json"  # another report on the same runs takes time
    for name in (*manifest.read(listing).files, listing.name, "controls_runs.tar.gz"):
        (TINY / name).unlink()
    runs, measured = TINY / "runs/xception", TINY / "measured/xception"
    for path in (runs / "config.json", runs / "seed-1.csv", measured / "seed-2.json"):
        whole = path.read_bytes()
        path.write_bytes(content)
        assert any(str(path) in line for line in verify("tiny").wrong), path
        path.write_bytes(whole)


@pytest.mark.parametrize("content", GARBAGE)
def test_every_parser_raises_a_user_error_with_the_path(content: bytes) -> None:
    for read, path in (
        (effects.read, STUDY / "claims.json"),
        (summary_table.read, STUDY / "table.csv"),
        (manifest.read, TINY / "digests.json"),
        (read_run, TINY / "runs/xception/seed-0.csv"),
        (read_run_keys, STUDY / "table.csv"),
        (read_run_keys, STUDY / "figure.png"),
        (read_run_keys, STUDY / "figure.svg"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=str(path)):
            read(path)
    (TINY / "verdicts.json").write_bytes(content)
    if content != b"":
        with pytest.raises(UserError, match=r"verdicts\.json"):
            verdicts.tags_and_metrics("residual_connections", "tiny")


def test_values_of_another_type_are_refused_where_they_are_read() -> None:
    path = STUDY / "table.csv"
    path.write_text(path.read_text().replace(",1000,", ",many,", 1))
    with pytest.raises(UserError, match=r"table\.csv: invalid values in column parameters"):
        summary_table.read(path)
    path = STUDY / "claims.json"
    claims = path.read_text()
    for old, new in (('"mean": ', '"mean": "x" '), ('"seeds": [', '"seeds": ["x", ')):
        path.write_text(claims.replace(old, new))
        with pytest.raises(UserError, match=r"claims\.json"):
            effects.read(path)


def test_a_bug_of_a_library_is_no_line_of_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr(pd.DataFrame, "groupby", broken)
    with pytest.raises(ValueError, match="broadcast"):
        verify("tiny")
