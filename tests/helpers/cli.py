"""Runs scripts as a user runs them, and checks the reports that they write."""

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
COMPILED = tempfile.TemporaryDirectory()  # the compilation cache that all scripts share, in place of the user's
FAST_COMPILE = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # for scripts that take longer to compile than to run
TIMEOUT_SECONDS = 300
MAX_REPORT_BYTES = 5_000_000
ACTIVE_TAGS = {"script", "link", "iframe", "object", "embed", "base", "form", "svg"}
LOADING_ATTRIBUTES = {"style", "srcset", "background", "data", "poster", "action"}

# Reads command lines as JSON, runs each as `python -m` would, and prints exit codes, stdout and stderr as JSON. Python
# and JAX start only once.
RUN_EACH = """
import contextlib, io, json, runpy, sys, traceback
results = []
for module, *arguments in json.load(sys.stdin):
    sys.argv = ["", *arguments]
    code = 0
    out = io.StringIO()
    err = io.StringIO()
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
    settings = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "JAX_COMPILATION_CACHE_DIR": COMPILED.name}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **settings, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        **options,
    )


def run(
    folder: Path, *arguments: object, code: int = 0, environment: Mapping[str, str] | None = None
) -> tuple[str, str]:
    """Runs `python -m experiments...` in a folder, which must exit with `code`; returns stdout and stderr."""
    done = start_python(folder, "-m", *arguments, environment=environment or {})
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def run_each(
    folder: Path, lines: Iterable[Sequence[object]], *, code: int | Sequence[int] = 0
) -> list[tuple[str, str]]:
    """`run` of several command lines, one after another in one process; `code` is one for all, or one for each."""
    words = [list(map(str, line)) for line in lines]
    done = start_python(folder, "-c", RUN_EACH, environment=FAST_COMPILE, input=json.dumps(words))
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    codes = [code] * len(words) if isinstance(code, int) else code
    for line, expected_code, (exit_code, _, err) in zip(words, codes, results, strict=True):
        assert exit_code == expected_code, f"{line}: {err}"
        assert "Traceback" not in err, f"{line}: {err}"
    return [(out, err) for _, out, err in results]


def decode_data_uri(source: str) -> Image.Image:
    """The picture in a data URI."""
    kind, data = source.split(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data, validate=True)))


def check_report(folder: Path, *, figures: int) -> dict[str, list[str]]:
    """Checks that a folder's report.html is valid and complete, loads nothing, and has this number of figures.

    Returns:
      The elements' texts, by tag.
    """
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert len(page.encode()) <= MAX_REPORT_BYTES
    root = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
    texts: dict[str, list[str]] = {}
    for element in root.iter():
        texts.setdefault(element.tag, []).append("".join(element.itertext()))
    check_self_contained(root, texts)
    check_headings(root, texts)
    check_figures(root, texts.get("figcaption", []), figures)
    assert any(text.startswith("python -m experiments.") for text in texts["pre"][-1:])
    assert {"out", "python", "jax", "device", "cores", "processor"} <= set(texts["dt"])
    return texts


def check_self_contained(root: Any, texts: Mapping[str, list[str]]) -> None:
    """Nothing runs, and nothing is loaded."""
    for element in root.iter():
        assert element.tag not in ACTIVE_TAGS
        assert not element.attrib.keys() & LOADING_ATTRIBUTES
        assert not any(name.startswith("on") for name in element.attrib)
    assert not re.search(r"url\(|@import", texts["style"][0])


def check_headings(root: Any, texts: Mapping[str, list[str]]) -> None:
    """The page has a language, a title and headings in order; the title is a question."""
    assert root.get("lang") == "en"
    metas = [meta.attrib for meta in root.iter("meta")]
    assert {"charset": "utf-8"} in metas
    assert {"viewport", "color-scheme"} <= {meta.get("name") for meta in metas}
    levels = [int(element.tag[1]) for element in root.iter() if re.fullmatch("h[1-6]", element.tag)]
    assert levels[0] == 1
    assert set(levels[1:]) == {2}
    assert texts["title"] == texts["h1"]
    assert texts["h1"][0].endswith("?")


def check_figures(root: Any, captions: Sequence[str], count: int) -> None:
    """Every figure is a picture with a caption and an alternative text."""
    images = list(root.iter("img"))
    assert len(images) == len(captions) == count
    for image, caption in zip(images, captions, strict=True):
        decode_data_uri(image.get("src")).load()
        assert image.get("alt").strip()
        assert image.get("alt") in caption


def png(path: Path, image: np.ndarray) -> Path:
    """Writes an array as a PNG file; returns its path."""
    Image.fromarray(image).save(path)
    return path
