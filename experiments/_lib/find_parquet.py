"""Batch search for `experiments.find --parquet`: resumable, shared by processes, results as Parquet files."""

import collections
import hashlib
import json
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow
import pyarrow.parquet as parquet

from cnn_jax.files import atomic_write
from cnn_jax.progress import Progress

from . import cli, runner
from .find_pictures import Page
from .find_results import PageMatches
from .find_search import SearchedPage, SearchFiles

MAX_ROWS_PER_PART = 1000
MAX_SECONDS_PER_PART = 60.0
MATCH_FIELDS = {"page": "int32", "y": "float64", "x": "float64", "height": "int32", "width": "int32"}
MATCH_FIELDS |= {"scale": "float64", "angle": "float64", "score": "float64"}

Row = dict[str, Any]
"""A file: its path, its pages, why some could not be searched or None, how many matches were found, and the best."""


def search_into_parts(
    files: Sequence[Path], folder: Path, options: Mapping[str, Any], search: SearchFiles, *, resume: bool
) -> dict[str, Any]:
    """Searches this process's share of the files and writes the results into part-*.parquet.

    Args:
      files: the files that all processes share.
      folder: where the parts are. Files that they hold already are skipped.
      options: the search's options, which identify it.
      search: searches files.
      resume: whether to keep existing parts; otherwise they are deleted.

    Returns:
      Counts of pictures and matches, and the rate.

    Raises:
      ValueError: the folder holds parts of a search with other options.
    """
    started = time.monotonic()
    identity = json.dumps(options, sort_keys=True)
    if jax.process_index() == 0:
        read_searched(folder, identity, resume)
    runner.barrier("parts are in order")
    searched = read_searched(folder, identity, resume=True)
    share = [file for i, file in enumerate(files) if i % jax.process_count() == jax.process_index()]
    pending = [file for file in share if str(file) not in searched]
    skipped = len(share) - len(pending)
    if skipped:
        print(f"{folder}: resuming after {skipped} pictures", file=sys.stderr)
    counts = write_parts(search(pending), folder, identity, len(pending))
    seconds = time.monotonic() - started
    return counts | {"before": skipped, "seconds": seconds, "pictures_per_s": len(pending) / seconds}


def write_parts(pages: Iterable[SearchedPage], folder: Path, identity: str, total: int) -> dict[str, int]:
    """Writes results into parts while they come; returns how many files there were of each kind."""
    counts = {"searched": 0, "unread": 0, "matches": 0}
    rows: list[Row] = []
    last_written = time.monotonic()
    with Progress("searching", max(total, 1)) as progress:
        for row in file_rows(pages):
            rows.append(row)
            counts["searched" if row["unread"] is None else "unread"] += 1
            counts["matches"] += len(row["matches"])
            if len(rows) >= MAX_ROWS_PER_PART or time.monotonic() - last_written > MAX_SECONDS_PER_PART:
                write_part(folder, rows, identity)
                rows = []
                last_written = time.monotonic()
            progress.update(counts["searched"] + counts["unread"])
    if rows:
        write_part(folder, rows, identity)
    return counts


def file_rows(pages: Iterable[SearchedPage]) -> Iterator[Row]:
    """The row of each file, when all its pages have come."""
    incomplete: dict[Path, dict[Page, PageMatches | str]] = collections.defaultdict(dict)
    for page, _, result in pages:
        incomplete[page.path][page] = result
        if len(incomplete[page.path]) == page.total:
            yield make_row(page.path, incomplete.pop(page.path))


def make_row(path: Path, results: Mapping[Page, PageMatches | str]) -> Row:
    """A file's row, its pages in order."""
    ordered = [results[page] for page in sorted(results)]
    reasons = [result for result in ordered if isinstance(result, str)]
    matches = [result for result in ordered if not isinstance(result, str)]
    return {
        "picture": str(path),
        "pages": len(ordered),
        "unread": "; ".join(reasons) or None,
        "found": sum(page_matches.found for page_matches in matches),
        "matches": [record for page_matches in matches for record in page_matches.records],
    }


def read_searched(folder: Path, identity: str, resume: bool) -> set[str]:
    """The pictures that a folder's parts hold; damaged parts are set aside.

    Raises:
      ValueError: a part is of a search with other options.
    """
    searched = set()
    for path in sorted(folder.glob("part-*.parquet")):
        if not resume:
            path.unlink(missing_ok=True)
            continue
        try:
            table = parquet.read_table(path, page_checksum_verification=True)
        except Exception as error:  # Arrow raises many kinds for damaged files
            print(f"{path}: damaged, will be searched again ({cli.one_line_error(error)})", file=sys.stderr)
            path.rename(path.with_suffix(".damaged"))
            continue
        recorded = json.loads((table.schema.metadata or {}).get(b"asked", b"{}"))
        runner.refuse_other_options(f"{folder}: holds a search", recorded, json.loads(identity))
        searched.update(table["picture"].to_pylist())
    return searched


def write_part(folder: Path, rows: Sequence[Row], identity: str) -> None:
    """Writes rows into a new part, atomically."""
    fields = [(name, getattr(pyarrow, kind)()) for name, kind in MATCH_FIELDS.items()]
    point = pyarrow.list_(pyarrow.float64())
    points = [("center", point), ("corners", pyarrow.list_(point))]
    match = pyarrow.struct([("template", pyarrow.string()), *fields, *points])
    columns = [
        ("picture", pyarrow.string()),
        ("pages", pyarrow.int32()),
        ("unread", pyarrow.string()),
        ("found", pyarrow.int32()),
        ("matches", pyarrow.list_(match)),
    ]
    schema = pyarrow.schema(columns, metadata={"asked": identity})
    with atomic_write(folder / f"part-{uuid.uuid4().hex}.parquet") as temporary:
        parquet.write_table(pyarrow.Table.from_pylist(rows, schema), temporary, write_page_checksum=True)


def fingerprint(arrays: Iterable[np.ndarray | None]) -> str:
    """A checksum of templates and masks."""
    checksum = hashlib.sha256()
    for array in arrays:
        if array is None:
            checksum.update(b"none")
        else:
            checksum.update(str(array.shape).encode())
            checksum.update(np.ascontiguousarray(array).tobytes())
    return checksum.hexdigest()[:16]
