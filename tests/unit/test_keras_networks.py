"""With TensorFlow's borders the networks are those of keras.applications.

All is fp64, but Keras' batch norm on JAX computes in fp32, which leaves differences of 1e-6.
Needs Keras and JAX, which only the environment of `make bench` has.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.project import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (find_spec("keras") and find_spec("jax")), reason="no Keras, no JAX"),
]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("xception", 299),
        ("xception", 224),
        ("inception_v3", 299),
        ("inception_v3", 224),
        ("mobilenet_v1", 224),
    ],
)
def test_same_function_as_keras(tmp_path: Path, name: str, size: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "helpers.keras_networks", name, str(size)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "KERAS_HOME": str(tmp_path),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        },
    )
    assert done.returncode == 0, done.stderr
    differences = json.loads(done.stdout.splitlines()[-1])
    assert differences["tensorflow"] < 1e-5
    assert differences["loaded"] < 1e-5, "evaluate reads Keras' file otherwise"
    assert differences["torch"] > 0.005
