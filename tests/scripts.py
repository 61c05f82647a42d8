"""Scripts run as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]


def run(folder, *arguments, code=0, **environment):
    """Runs `python -m experiments...` in a folder; the exit code must be the given one. Returns (stdout, stderr)."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def png(path, image):
    Image.fromarray(image).save(path)
    return path
