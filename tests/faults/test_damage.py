"""Whatever is cut or flipped is found, and what depends on it made again."""

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from helpers.processes import dvc
from helpers.project import TRAIN, results, sepablate

from sepablate.analysis.load_runs import load_config
from sepablate.data import download, fashion_mnist
from sepablate.provenance import doctor
from sepablate.store import checkpoint, layout
from sepablate.store.files import (
    MANIFEST,
    corrupt_files,
    verify_manifest,
    write_atomically,
    write_manifest,
)

RUN = "results/smoke/runs/xception"


def disturbed(whole: bytes, draw: random.Random) -> bytes:
    """One bit flipped, or sometimes the end cut off."""
    if draw.random() < 0.2:
        return whole[: draw.randrange(len(whole))]
    wrong = bytearray(whole)
    wrong[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
    return bytes(wrong)


@pytest.mark.slow
def test_each_of_500_flips_is_found(tmp_path: Path, finished: Path, data_folder: Path) -> None:
    """In data, checkpoints, curves, configs and seals: real files, each flip by itself."""
    draw, found = random.Random(0), 0
    run = next(path.parent for path in (finished / ".sepablate/runs").glob("*/result.csv"))
    for name, folder in (("run", run), ("results", finished / RUN)):
        shutil.copytree(folder, tmp_path / name)
        names = [path for path in (tmp_path / name).iterdir() if path.name != "lock"]
        for _ in range(150):
            path = draw.choice(sorted(names))
            good = path.read_bytes()
            path.write_bytes(disturbed(good, draw))
            assert corrupt_files(path.parent), path
            assert not verify_manifest(path.parent)
            path.write_bytes(good)
            found += 1
        assert verify_manifest(tmp_path / name)
    name = "t10k-labels-idx1-ubyte"
    labels = (data_folder / "fashion-mnist" / name).read_bytes()
    for _ in range(100):
        (tmp_path / name).write_bytes(disturbed(labels, draw))
        with pytest.raises(ValueError, match=name):
            download.verified(fashion_mnist.SOURCE, tmp_path, name)
        found += 1
    checkpoint.save(tmp_path, 1, {"step": 1})
    checkpoint.save(tmp_path, 2, {"step": 2})
    newest = max(tmp_path.glob("checkpoint-*.pt"))
    good = newest.read_bytes()
    for _ in range(100):
        newest.write_bytes(disturbed(good, draw))
        assert (checkpoint.load(tmp_path) or {})["step"] == 1
        found += 1
    assert found == 500


def test_a_seal_vouches_for_each_file_and_for_itself(tmp_path: Path) -> None:
    texts = {"result.csv": "run_key,step\n" * 30, "run.json": '{"images": 96}'}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    write_manifest(tmp_path, texts)
    assert verify_manifest(tmp_path)
    (tmp_path / "run.json").unlink()
    assert corrupt_files(tmp_path) == ["run.json"]
    (tmp_path / MANIFEST).write_text("{}")
    assert corrupt_files(tmp_path) == [MANIFEST]
    assert corrupt_files(tmp_path / "nothing") == []


def test_a_damaged_checkpoint_does_not_push_out_a_good_one(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"step": step})
    max(tmp_path.iterdir()).write_bytes(b"")
    assert (checkpoint.load(tmp_path) or {})["step"] == 1
    checkpoint.save(tmp_path, 2, {"step": 2})
    max(tmp_path.iterdir()).write_bytes(b"")
    assert (checkpoint.load(tmp_path) or {})["step"] == 1


@pytest.mark.slow
def test_a_damaged_run_is_trained_again_and_damaged_results_are_refused(
    whole: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(whole)
    config = json.loads((whole / RUN / "config.json").read_text())
    path = whole / f".sepablate/runs/{config['run_keys']['1']}/result.csv"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    done = sepablate(whole, *TRAIN)
    assert done.returncode == 0
    assert "result.csv is damaged: xception seed 1 is trained again" in done.stdout
    assert results(whole) == results(finished)
    for name in ("config.json", "seed-1.csv", "seed-0.correct.bin"):
        path = whole / RUN / name
        good = path.read_bytes()
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(ValueError, match=rf"{name}: damaged; run .*train xception"):
            load_config("smoke", "xception")
        path.write_bytes(good)
    assert load_config("smoke", "xception")["seeds"] == [0, 1, 2]


@pytest.mark.parametrize("damage", ["magic", "count", "label", "empty"])
def test_wrong_idx_files_are_refused(data_folder: Path, tmp_path: Path, damage: str) -> None:
    name = "t10k-labels-idx1-ubyte"
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    for file in (data_folder / "fashion-mnist").glob("*-ubyte"):
        (folder / file.name).symlink_to(file)
    whole = (folder / name).read_bytes()
    (folder / name).unlink()
    (folder / name).write_bytes(
        {
            "magic": b"\x00\x00\x0d\x01" + whole[4:],
            "count": whole[:4] + (9_999).to_bytes(4, "big") + whole[8:],
            "label": whole[:-1] + b"\x0b",
            "empty": b"",
        }[damage]
    )
    with pytest.raises(ValueError, match=f"{name} .* expected"):
        fashion_mnist.load(tmp_path)


def lock_text() -> str:
    stages = {
        f"train@{name}": {
            "cmd": f"python -m sepablate train {name}",
            "deps": [{"path": "sepablate/data", "hash": "md5", "md5": "0" * 32, "size": 5}],
            "params": {"params.yaml": {"recipe": {"decay": 0.94}}},
            "outs": [{"path": f"results/runs/{name}", "hash": "md5", "md5": "1" * 32, "nfiles": 3}],
        }
        for name in ("xception", "no_residual")
    }
    return yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False)


def test_a_dvc_lock_cut_at_any_length_is_found_or_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole, path, found = lock_text(), Path("dvc.lock"), 0
    for length in range(len(whole)):
        path.write_text(whole[:length])
        findings = [each for each in doctor.examine(repair=True) if "dvc.lock" in each.line]
        if findings:
            found += 1
            assert findings[0].repaired
            assert not path.exists()
            assert Path("dvc.lock.broken").read_text() == whole[:length]
        else:
            COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(path.read_text()))
    assert found > len(whole) / 2
    path.write_text(whole)
    assert not [each for each in doctor.examine() if "dvc.lock" in each.line]


@pytest.mark.slow
def test_what_dvc_lost_is_repaired_without_training(whole: Path, finished: Path) -> None:
    """An emptied dvc.lock, and a flipped byte in DVC's cache, which DVC itself would not notice."""
    subprocess.run(["git", "init", "-q"], cwd=whole, check=True)
    dvc(whole, "repro", "train@xception")
    lock = whole / "dvc.lock"
    recorded, stamps = lock.read_bytes(), run_stamps(whole)
    lock.write_bytes(b"")
    (whole / ".sepablate/.precision.json.999999999.tmp").write_bytes(b"half")
    cached = flip_in_cache(whole, whole / RUN / "seed-1.csv")
    sick = sepablate(whole, "doctor")
    assert sick.returncode == 1
    assert "dvc.lock: corrupt" in sick.stdout
    assert ".precision.json.999999999.tmp: not needed any more" in sick.stdout
    assert f"{cached.relative_to(whole)}: damaged in DVC's cache" in sick.stdout
    repaired = sepablate(whole, "doctor", "--repair")
    assert repaired.returncode == 0, repaired.stdout
    assert not cached.exists()
    shutil.rmtree(whole / RUN)
    dvc(whole, "repro", "train@xception")
    assert yaml.safe_load(lock.read_bytes()) == yaml.safe_load(recorded)
    assert run_stamps(whole) == stamps
    assert results(whole) == results(finished)
    assert sepablate(whole, "doctor").stdout == "healthy\n"


def flip_in_cache(project: Path, original: Path) -> Path:
    """Damage DVC's copy of a file as a failing disk does; where it is."""
    copies = (project / ".dvc/cache/files/md5").glob("??/*")
    (cached,) = [path for path in copies if path.read_bytes() == original.read_bytes()]
    wrong = bytearray(cached.read_bytes())
    wrong[len(wrong) // 2] ^= 1
    mode = cached.stat().st_mode
    cached.chmod(0o644)
    cached.write_bytes(wrong)
    cached.chmod(mode)
    return cached


def run_stamps(project: Path) -> dict[Path, int]:
    found = (project / ".sepablate/runs").glob("*/result.csv")
    return {path: path.stat().st_mtime_ns for path in found}


def test_doctor_names_a_wrong_version_and_a_wrong_data_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctor.examine() == []
    Path("requirements.lock").write_text("numpy==0.1 \\\n    --hash=sha256:00\n")
    name = next(iter(fashion_mnist.SOURCE.expected))
    write_atomically(layout.DATA / "fashion-mnist" / name, b"none")
    lines = [finding.line for finding in doctor.examine(repair=True)]
    assert len(lines) == 2
    assert name in lines[0]
    assert lines[1].startswith("numpy ")
    assert all("\n" not in line for line in lines)
