"""How `experiments.find` searches more pictures than one would look at: on all devices and processes, into Parquet."""

import hashlib
import json
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn_jax.files import atomic_write
from cnn_jax.progress import Progress

from . import cli, runner

PART, SOON = 1000, 60.0  # a part is written after so many pictures, or seconds
Rows = list[dict[str, Any]]


def search_all(
    files: Sequence[Path],
    folder: Path,
    asked: Mapping[str, Any],
    search: Callable[[Sequence[Path]], Any],
    *,
    resume: bool,
) -> dict[str, Any]:
    """Searches this process's share of the files that no part in the folder holds yet, and writes parts of its own.

    Every row is a picture: its name, why it could not be searched (or null), and the list of its matches. `search`
    yields (file, matches or why). A folder with parts of another search is refused. Returns what was counted.
    """
    text, started = json.dumps(asked, sort_keys=True), time.monotonic()
    if jax.process_index() == 0:
        searched(folder, text, resume)
    runner.barrier("parts are in order")
    done = searched(folder, text, True)
    own = [file for i, file in enumerate(files) if i % jax.process_count() == jax.process_index()]
    left = [file for file in own if str(file) not in done]
    if len(left) < len(own):
        print(f"{folder}: going on after {len(own) - len(left)} pictures", file=sys.stderr)
    counts = {"searched": 0, "unread": 0, "matches": 0}
    rows: Rows = []
    written = time.monotonic()
    with Progress("searching", max(len(left), 1)) as bar:
        for file, found in search(left):
            why = found if isinstance(found, str) else None
            rows.append({"picture": str(file), "unread": why, "matches": [] if why else found})
            counts["unread" if why else "searched"] += 1
            counts["matches"] += len(rows[-1]["matches"])
            if len(rows) >= PART or time.monotonic() - written > SOON:
                write(folder, rows, text)
                rows, written = [], time.monotonic()
            bar.update(counts["searched"] + counts["unread"])
    if rows:
        write(folder, rows, text)
    seconds = time.monotonic() - started
    return counts | {"before": len(own) - len(left), "seconds": seconds, "pictures_per_s": len(left) / seconds}


def searched(folder: Path, asked: str, resume: bool) -> set[str]:
    """The pictures that the parts in a folder hold, which must be of the same search."""
    parquet, done = _parquet(), set()
    for path in sorted(folder.glob("part-*.parquet")):
        if not resume:
            path.unlink(missing_ok=True)
            continue
        try:
            table = parquet.read_table(path, page_checksum_verification=True)
        except Exception as error:  # whatever Arrow makes of a damaged file
            print(f"{path}: left out and searched anew ({cli.one_line_error(error)})", file=sys.stderr)
            path.rename(path.with_suffix(".damaged"))
            continue
        found = json.loads((table.schema.metadata or {}).get(b"asked", b"{}"))
        for name, value in json.loads(asked).items():
            if found.get(name) != value:
                given = f"{name} {found.get(name)}, this one has {value}"
                raise ValueError(f"{folder}: holds a search with {given}; expected another --out, or --no-resume")
        done.update(table["picture"].to_pylist())
    return done


def write(folder: Path, rows: Rows, asked: str) -> None:
    """Writes a part, whole or not at all."""
    import pyarrow

    numbers = {"y": "float64", "x": "float64", "height": "int32", "width": "int32"}
    numbers |= {"scale": "float64", "angle": "float64", "score": "float64"}
    match = pyarrow.struct([("template", pyarrow.string()), *((n, getattr(pyarrow, k)()) for n, k in numbers.items())])
    columns = [("picture", pyarrow.string()), ("unread", pyarrow.string()), ("matches", pyarrow.list_(match))]
    schema = pyarrow.schema(columns, metadata={"asked": asked})
    with atomic_write(folder / f"part-{uuid.uuid4().hex}.parquet") as temporary:
        _parquet().write_table(pyarrow.Table.from_pylist(rows, schema), temporary, write_page_checksum=True)


def digest(arrays: Sequence[np.ndarray | None]) -> str:
    """What tells templates and masks from others."""
    sums = hashlib.sha256()
    for array in arrays:
        sums.update(b"none" if array is None else str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return sums.hexdigest()[:16]


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("--parquet needs PyArrow: pip install 'cnn_jax[experiments]'") from error
    return pyarrow.parquet
