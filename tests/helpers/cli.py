"""Scripts run as a user runs them."""

import base64
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import html5lib
import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
# What the scripts compile is kept for the next ones here, not in the user's cache.
COMPILED = tempfile.TemporaryDirectory()
FAST_COMPILE = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # for scripts that have less to do than their compiler

# Reads command lines, runs each as `python -m` would, and prints what became of them: one start of Python and JAX
# for all of them.
SEVERAL = """
import contextlib, io, json, runpy, sys, traceback
results = []
for module, *arguments in json.load(sys.stdin):
    sys.argv, code, out, err = ["", *arguments], 0, io.StringIO(), io.StringIO()
    sys.modules.pop(module, None)  # another script may have imported it
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as error:
            code = error.code or 0
        except BaseException:
            code = 1
            traceback.print_exc()
    results.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(results))
"""


def start_python(
    folder: Path, *arguments: object, environment: Mapping[str, str], **options: Any
) -> subprocess.CompletedProcess[str]:
    """Runs Python with these arguments in a folder, warnings being errors."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "JAX_COMPILATION_CACHE_DIR": COMPILED.name}
        | dict(environment),
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


def run(
    folder: Path, *arguments: object, code: int = 0, environment: Mapping[str, str] | None = None
) -> tuple[str, str]:
    """Runs `python -m experiments...` in a folder; the exit code must be the given one. Returns (stdout, stderr)."""
    done = start_python(folder, "-m", *arguments, environment=environment or {})
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def run_each(folder: Path, lines: Iterable[Sequence[object]], *, code: int = 0) -> list[tuple[str, str]]:
    """`run` of several command lines one after another, for scripts that have little to do. Returns a list."""
    words = [list(map(str, line)) for line in lines]
    done = start_python(folder, "-c", SEVERAL, environment=FAST_COMPILE, input=json.dumps(words))
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    for line, (ended, _, err) in zip(words, results, strict=True):
        assert ended == code, f"{line}: {err}"
        assert "Traceback" not in err, f"{line}: {err}"
    return [(out, err) for _, out, err in results]


def decode_data_uri(source: str) -> Image.Image:
    """The picture in a data URI."""
    start, data = source.split(",")
    assert start == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data, validate=True)))


def check_report(folder: Path, *, figures: int) -> dict[str, list[str]]:
    """That the folder's report.html is valid and whole, loads nothing, and has so many figures. Returns its elements'
    texts, by tag."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert len(page.encode()) <= 5_000_000
    root = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
    texts = {}
    for element in root.iter():
        assert element.tag not in ("script", "link", "iframe", "object", "embed", "base", "form", "svg")
        assert not element.attrib.keys() & {"style", "srcset", "background", "data", "poster", "action"}
        assert not any(name.startswith("on") for name in element.attrib)
        texts.setdefault(element.tag, []).append("".join(element.itertext()))
    assert not re.search(r"url\(|@import", texts["style"][0])

    assert root.get("lang") == "en"
    metas = [meta.attrib for meta in root.iter("meta")]
    assert {"charset": "utf-8"} in metas
    assert {"viewport", "color-scheme"} <= {meta.get("name") for meta in metas}
    headings = [int(element.tag[1]) for element in root.iter() if re.fullmatch("h[1-6]", element.tag)]
    assert headings[0] == 1
    assert set(headings[1:]) == {2}
    assert texts["title"] == texts["h1"]
    assert texts["h1"][0].endswith("?")

    images, captions = list(root.iter("img")), texts.get("figcaption", [])
    assert len(images) == len(captions) == figures
    for image, caption in zip(images, captions, strict=True):
        decode_data_uri(image.get("src")).load()
        assert image.get("alt").strip()
        assert image.get("alt") in caption
    assert any(text.startswith("python -m experiments.") for text in texts["pre"][-1:])
    assert {"out", "python", "jax", "device", "cores", "processor"} <= set(texts["dt"])
    return texts


def png(path: Path, image: np.ndarray) -> Path:
    """Writes an array as a PNG file; returns its path."""
    Image.fromarray(image).save(path)
    return path
