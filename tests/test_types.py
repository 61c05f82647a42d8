"""The types that users see: a user's file passes pyright, and mistakes do not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow

MISTAKES = {
    "net.apply(params, image, trian=True)": 'No parameter named "trian"',
    "cnn_jax.match(image, None)": '"None" is not assignable',
    "cnn_jax.zncc(image, image, striped=2)": 'No parameter named "striped"',
    "cnn_jax.find(image, image, score=len)": "is not assignable to",
    "cnn_jax.fit(net, (image, image), optimizer=0.1, steps=1, key=jax.random.key(0))": '"float" is not assignable',
    "cnn_jax.is_defined(image, image).scores": 'Cannot access attribute "scores"',
}
START = """
import jax
import numpy as np
import cnn_jax

image = np.zeros((4, 4, 1))
net = cnn_jax.Dense(2)
params = net.init(jax.random.key(0), (3,))
"""


def errors(path):
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return [found for found in json.loads(done.stdout)["generalDiagnostics"] if found["severity"] == "error"]


def test_a_user_s_file_with_numpy_arrays_passes():
    assert errors(ROOT / "tests" / "helpers" / "typed_user.py") == []


def test_a_user_s_file_runs():
    command = [sys.executable, "-W", "error", "-m", "tests.helpers.typed_user"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_mistakes_are_errors(tmp_path):
    (tmp_path / "mistakes.py").write_text(START + "\n".join(MISTAKES))
    first = len(START.splitlines())
    found = {item["range"]["start"]["line"] - first: item["message"] for item in errors(tmp_path / "mistakes.py")}
    for i, (line, message) in enumerate(MISTAKES.items()):
        assert message in found.get(i, ""), f"{line}: {found.get(i)}"
