"""Joules, where a machine counts them: a counter that turns over, and machines that do not tell."""

import ctypes
import types
from pathlib import Path

import pytest
import torch

from sepablate.execution import hardware


def zone(folder: Path, name: str, label: str, microjoules: int) -> Path:
    place = folder / name
    place.mkdir()
    (place / "name").write_text(f"{label}\n")
    (place / "max_energy_range_uj").write_text("10000000\n")
    (place / "energy_uj").write_text(f"{microjoules}\n")
    return place / "energy_uj"


def test_packages_are_added_up_and_their_parts_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "POWERCAP", tmp_path)
    assert hardware.energy_meter("cpu")() is None
    first = zone(tmp_path, "intel-rapl:0", "package-0", 9_000_000)
    part = zone(tmp_path, "intel-rapl:0:0", "core", 0)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 0)
    unreadable = zone(tmp_path, "intel-rapl:2", "package-2", 0)
    unreadable.unlink()
    meter = hardware.energy_meter("cpu")
    part.write_text("5000000")
    assert meter() == 0.0
    first.write_text("2000000")  # past 10 J, the counter began again
    second.write_text("1500000")
    assert meter() == 4.5
    first.write_text("2100000")
    assert meter() == 4.6


def test_an_accelerator_is_asked_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, names = iter((5_000, 5_000, 7_500)), []

    def energy(handle: ctypes.c_void_p, millijoules: object) -> int:
        millijoules._obj.value = next(counted)  # type: ignore[attr-defined]
        return 0

    library = types.SimpleNamespace(
        nvmlInit_v2=lambda: 0,
        nvmlDeviceGetHandleByUUID=lambda name, handle: names.append(name),
        nvmlDeviceGetTotalEnergyConsumption=energy,
    )
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    card = types.SimpleNamespace(uuid="12-ab")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    assert hardware.energy_meter("cuda:0")() == 2.5
    assert names == [b"GPU-12-ab"]
    library.nvmlInit_v2 = lambda: 9  # driver not loaded
    assert hardware.energy_meter("cuda:0")() is None
