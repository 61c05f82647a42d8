"""Where in these pictures is this template, at any scale and angle?

Claim: in a picture of 40 shapes at 3 scales and 8 angles, with noise of standard deviation 0.3 (black is -1, white 1),
all shapes are found with the right scale and angle, and there is no false alarm. With seed 0, all are within 0.1 pixels
of their true positions.
Evidence: what `python -m experiments.find` prints for the picture that it draws. runs/find/metrics.json has every
match.

    python -m experiments.find                                    search the demonstration picture
    python -m experiments.find PHOTO.jpg --template LOGO.png      find a logo in a photo
    python -m experiments.find FOLDER --template A.png B.png --scales 0.5 1 --angles 0 90 180 270 --json
"""

import dataclasses
import functools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro

import cnn_jax
from cnn_jax.data import image_io
from cnn_jax.progress import Progress

from ._lib import cli, find_demo, find_parquet, report, runner
from ._lib.find_pictures import Templates, list_pictures, on_white, read_templates
from ._lib.find_results import Record, draw_matches, match_records, match_tables, save_picture
from ._lib.find_search import make_search, search_pictures

SCORES = {"zncc": cnn_jax.zncc, "cosine": cnn_jax.cosine, "match": cnn_jax.match}
MAX_REPORTED_PICTURES = 6
MAX_STEM_CHARACTERS = 50  # of a picture's name in its copy's name
DEMONSTRATION_FIGURES = {
    "picture.png": "The picture: three hand-drawn shapes in noise",
    "found.png": "Matches: outlines in one color per shape, and scores",
}
PICTURE_OPTIONS = ("mask", "scales", "angles", "top_k", "parquet")  # the demonstration sets them itself
SEARCH_OPTIONS = ("scales", "angles", "score", "min_score", "top_k", "max_overlap", "seed")


@dataclasses.dataclass(frozen=True)
class Find(runner.RunOptions):
    """Find templates in pictures. Without pictures, search a demonstration picture that the script draws."""

    pictures: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Picture files, and folders of them."""
    template: tuple[Path, ...] = ()
    """Template files. Transparent pixels do not count. Pictures are compared in color if any template has colors."""
    mask: tuple[Path, ...] = ()
    """One picture per template, of its size: black where a pixel of the template does not count."""
    scales: tuple[float, ...] = (1.0,)
    """Scales at which to search: 2 finds the template at twice its size."""
    angles: tuple[float, ...] = (0.0,)
    """Angles at which to search, in degrees counterclockwise."""
    score: Literal["zncc", "cosine", "match"] = "zncc"
    """How a template is compared with a picture. zncc does not depend on brightness and contrast."""
    min_score: float = 0.7
    """Lowest score of a match."""
    top_k: int = 10
    """Largest number of matches per picture."""
    max_overlap: float = 0.25
    """Largest overlap of two matches: intersection over union of their upright bounding boxes."""
    json: bool = False
    """Print JSON instead of tables."""
    parquet: bool = False
    """For many pictures: write matches to OUT/matches/part-*.parquet, without tables and copies of the pictures."""
    resume: bool = True
    """With --parquet, continue an interrupted search with the same options; --no-resume starts over."""
    seed: int = 0
    """Seed of the demonstration picture."""
    out: Path = Path("runs/find")
    """Folder for report.html, metrics.json and copies of the pictures with matches outlined."""


def main(config: Find) -> dict[str, Any]:
    """Searches, prints and draws; returns the content of metrics.json."""
    check_options(config)
    return search_files(config) if config.pictures else demonstrate(config)


def check_options(config: Find) -> None:
    """Raises ValueError for options that do not go together."""
    if bool(config.pictures) != bool(config.template):
        raise ValueError("pictures and --template: expected both, or neither for the demonstration")
    defaults = Find()
    for name in PICTURE_OPTIONS:
        if not config.pictures and getattr(config, name) != getattr(defaults, name):
            raise ValueError(f"--{name.replace('_', '-')}: only allowed together with pictures")
    if math.isnan(config.min_score):
        raise ValueError("--min-score: expected a number, got nan")
    if config.distributed and not config.parquet:
        raise ValueError("--distributed: only allowed together with --parquet")


def search_files(config: Find) -> dict[str, Any]:
    """Searches picture files. Those that cannot be read do not stop the others, but make the exit code 2."""
    templates = read_templates(config.template, config.mask, config.score)
    mesh = runner.connect_devices(config.devices, config.distributed)
    local_mesh = None if mesh is None else mesh.local_mesh
    search = make_search(templates, local_mesh, **find_arguments(config))
    files = list(dict.fromkeys(list_pictures(config.pictures)))
    if not files:
        raise ValueError(f"pictures: no picture file in {', '.join(map(str, config.pictures))}")
    cli.make_output_dir(config.out)
    devices = 1 if local_mesh is None else local_mesh.size
    search_all = functools.partial(search_pictures, search=search, templates=templates, devices=devices)
    if config.parquet:
        return search_many(config, files, search_all, templates)
    return search_and_draw(config, files, search_all, templates)


def find_arguments(config: Find) -> dict[str, Any]:
    """The options of `cnn_jax.find`."""
    return {
        "score": SCORES[config.score],
        "scales": config.scales,
        "angles": tuple(map(math.radians, config.angles)),
        "top_k": config.top_k,
        "min_score": config.min_score,
        "max_overlap": config.max_overlap,
    }


def search_and_draw(
    config: Find, files: Sequence[Path], search_all: find_parquet.SearchFiles, templates: Templates
) -> dict[str, Any]:
    """Searches files, and prints and draws the matches of each."""
    matches: dict[Path, list[Record]] = {}
    unread: dict[Path, str] = {}
    copies: dict[Path, str] = {}
    with Progress("searching", len(files), show=len(files) > 1) as progress:
        for path, result in search_all(files):
            searched_count = len(matches) + len(unread) + 1
            if isinstance(result, str):
                unread[path] = result
            else:
                matches[path] = result
                copies[path] = f"{searched_count:04d}_{path.stem[:MAX_STEM_CHARACTERS]}.png"
                picture = on_white(image_io.read_color(path))
                save_picture(draw_matches(picture, result, templates), config.out / copies[path])
            progress.update(searched_count)
    ordered = {str(path): matches[path] for path in files if path in matches}
    metrics = {"found": ordered, "unread": {str(path): reason for path, reason in unread.items()}}
    figures = {copies[path]: f"{path}: {len(matches[path])} found" for path in files if path in matches}
    write_results(config, metrics, file_results(config, metrics), dict(list(figures.items())[:MAX_REPORTED_PICTURES]))
    if unread:
        sys.stdout.flush()
        for reason in unread.values():
            print(reason, file=sys.stderr)
        cli.exit_with_error(f"{len(unread)} of {len(files)} pictures could not be searched")
    return metrics


def file_results(config: Find, metrics: Mapping[str, Any]) -> report.Results:
    """The report's tables: the first pictures' matches, and the files that could not be searched."""
    matches = metrics["found"]
    blocks = match_tables(dict(list(matches.items())[:MAX_REPORTED_PICTURES]))
    shown_count = min(len(matches), MAX_REPORTED_PICTURES)
    omitted_count = len(matches) - shown_count
    if omitted_count:
        blocks.append(
            f"These are the first {shown_count} of {len(matches)} pictures; {omitted_count} more are in {config.out}."
        )
    if metrics["unread"]:
        rows = [[reason] for reason in metrics["unread"].values()]
        blocks.append([["pictures that could not be searched"], *rows])
    return blocks


def search_many(
    config: Find, files: Sequence[Path], search_all: find_parquet.SearchFiles, templates: Templates
) -> dict[str, Any]:
    """Searches files into Parquet parts, and prints only how many there were."""
    checksum = find_parquet.fingerprint([*templates.features, *templates.masks])
    options = search_options(config) | {"templates": checksum}
    folder = config.out / "matches"
    metrics = find_parquet.search_into_parts(files, folder, options, search_all, resume=config.resume)
    if jax.process_index() == 0:
        write_metrics(config, metrics)
        head = [name.replace("_", " ") for name in metrics]
        report.write_html(config.out, "find", config, [[head, [f"{value:,.6g}" for value in metrics.values()]]])
    print(
        f"{metrics['searched']} pictures searched, {metrics['unread']} unreadable, {metrics['matches']} matches; "
        f"{metrics['pictures_per_s']:.1f} pictures per second; results are in {folder}"
    )
    return metrics


def demonstrate(config: Find) -> dict[str, Any]:
    """Searches the demonstration picture, and reports how many shapes were found and how precisely."""
    out = cli.make_output_dir(config.out)
    picture, placed = find_demo.picture(config.seed)
    templates = find_demo.templates()
    config = dataclasses.replace(config, scales=find_demo.SCALES, angles=find_demo.ANGLES, top_k=2 * len(placed))
    search = make_search(templates, **find_arguments(config))
    matches = match_records(search(picture[None])[0], templates.names)
    errors, false_alarms = find_demo.evaluate(matches, placed)
    save_picture(picture, out / "picture.png")
    save_picture(draw_matches(picture, matches, templates), out / "found.png")
    precision = {"median": np.median(errors), "largest": max(errors)} if errors else {}
    metrics = {"placed": len(placed), "right": len(errors), "false": false_alarms, "error_pixels": precision}
    metrics |= {"found": {"demonstration": matches}}
    summary = [
        f"{len(errors)} of {len(placed)} found with the right shape, scale and angle; {false_alarms} false alarms"
    ]
    if errors:
        summary.append(f"Position error: {precision['median']:.3f} pixels (median), {precision['largest']:.3f} at most")
    write_results(config, metrics, [*summary, *match_tables(metrics["found"])], DEMONSTRATION_FIGURES)
    if not config.json:
        print("\n".join([*summary, f"pictures are in {out}"]))
    return metrics


def write_results(
    config: Find, metrics: Mapping[str, Any], results: report.Results, figures: Mapping[str, str]
) -> None:
    """Writes metrics.json and report.html, and prints all matches as JSON or as tables."""
    write_metrics(config, metrics)
    report.write_html(config.out, "find", config, results, figures)
    print(json.dumps(metrics["found"], indent=2) if config.json else report.as_text(match_tables(metrics["found"])))


def write_metrics(config: Find, metrics: Mapping[str, Any]) -> None:
    """Writes metrics.json, with the options and the versions."""
    cli.write_json(config.out / "metrics.json", {**metrics, "options": search_options(config), **cli.versions()})


def search_options(config: Find) -> dict[str, Any]:
    """The options that the matches depend on."""
    return {name: getattr(config, name) for name in SEARCH_OPTIONS}


if __name__ == "__main__":
    cli.run_script(lambda: main(cli.parse_options(Find, "find", __doc__)))
