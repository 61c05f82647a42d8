"""Where in these pictures is this template, at any scale and angle?

Claim: in a picture of 40 shapes at 3 scales and 8 angles, with noise of standard deviation 0.3 (black is -1, white 1),
all shapes are found with the right scale and angle, and there is no false alarm. With seed 0, all are within 0.1 pixels
of their true positions.
Evidence: what `python -m experiments.find` prints for the picture that it draws. runs/find/metrics.json has every
match.

    python -m experiments.find                                    search the demonstration picture
    python -m experiments.find PHOTO.jpg --template LOGO.png      find a logo in a photo
    python -m experiments.find PHOTO.jpg --template LOGO.png --angle-range -180 180 --scale-range 0.5 2
    python -m experiments.find FOLDER --template A.png B.png --scales 0.5:2:0.25 --angles 0 90 180 270 --json
"""

import dataclasses
import functools
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from cnn_jax.progress import Progress

from ._lib import cli, find_demo, report, runner
from ._lib.find_options import Find, check_options, find_arguments, search_options
from ._lib.find_pictures import MAX_PIXELS, Page, Templates, list_pictures, read_templates
from ._lib.find_results import PageMatches, draw_matches, headline, match_records, match_tables, save_picture
from ._lib.find_search import SearchFiles, make_search, search_pictures

MAX_REPORTED_PAGES = 6
MAX_STEM_CHARACTERS = 50  # of a picture's name in its copy's name
DEMONSTRATION_FIGURES = {
    "picture.png": "The picture: three hand-drawn shapes in noise",
    "found.png": "Matches: outlines in one color per shape, and scores",
}


def main(config: Find) -> dict[str, Any]:
    """Searches, prints and draws; returns the content of metrics.json."""
    check_options(config)
    return search_files(config) if config.pictures else demonstrate(config)


def search_files(config: Find) -> dict[str, Any]:
    """Searches picture files. Those that cannot be read do not stop the others, but make the exit code 2."""
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's limit is lower
    arguments = find_arguments(config)
    templates = read_templates(config.template, config.mask, config.score)
    files = list(dict.fromkeys(list_pictures(config.pictures)))
    if not files:
        raise ValueError(f"pictures: no picture file in {', '.join(map(str, config.pictures))}")
    cli.make_output_dir(config.out)
    mesh = runner.connect_devices(config.devices, config.distributed)
    local_mesh = None if mesh is None else mesh.local_mesh
    search = make_search(templates, local_mesh, region=config.region, tile=config.tile, **arguments)
    search_all = functools.partial(
        search_pictures,
        search=search,
        templates=templates,
        devices=1 if local_mesh is None else local_mesh.size,
        scales=arguments["scale_range"] or arguments["scales"],
    )
    if config.parquet:
        return search_many(config, files, search_all, templates)
    return search_and_draw(config, files, search_all, templates)


def search_and_draw(
    config: Find, files: Sequence[Path], search_all: SearchFiles, templates: Templates
) -> dict[str, Any]:
    """Searches files, and prints and draws the matches in every page."""
    searched: dict[Page, PageMatches] = {}
    unread: dict[Page, str] = {}
    copies: dict[Page, str] = {}
    with Progress("searching", len(files), show=len(files) > 1) as progress:
        for page, picture, result in search_all(files):
            if isinstance(result, str) or picture is None:
                unread[page] = str(result)
            else:
                searched[page] = result
                copies[page] = copy_name(page, len(searched) + len(unread))
                save_picture(draw_matches(picture, result.records, templates.names), config.out / copies[page])
            progress.update(len({page.path for page in [*searched, *unread]}))
    pages = sort_pages(searched, files)
    metrics = page_metrics({page: searched[page] for page in pages}, unread)
    figures = {copies[page]: headline(page.label, searched[page]) for page in pages[:MAX_REPORTED_PAGES]}
    matches = {page.label: searched[page] for page in pages}
    write_results(config, metrics, matches, page_results(config, matches, unread), figures)
    if unread:
        sys.stdout.flush()
        for reason in unread.values():
            print(reason, file=sys.stderr)
        unread_count = len({page.path for page in unread})
        cli.exit_with_error(f"{unread_count} of {len(files)} pictures could not be searched")
    return metrics


def copy_name(page: Page, number: int) -> str:
    """The name of a copy of a page."""
    part = f"_page_{page.number}" if page.total > 1 else ""
    return f"{number:04d}_{page.path.stem[:MAX_STEM_CHARACTERS]}{part}.png"


def sort_pages(pages: Iterable[Page], files: Sequence[Path]) -> list[Page]:
    """Pages in the order of the files."""
    position = {path: i for i, path in enumerate(files)}
    return sorted(pages, key=lambda page: (position[page.path], page.number))


def page_metrics(searched: Mapping[Page, PageMatches], unread: Mapping[Page, str]) -> dict[str, Any]:
    """The content of metrics.json: by file its matches and how many were found, by page why it could not be read."""
    matches: dict[str, list[Any]] = {}
    counts: dict[str, int] = {}
    for page, page_matches in searched.items():
        path = str(page.path)
        matches.setdefault(path, []).extend(page_matches.records)
        counts[path] = counts.get(path, 0) + page_matches.found
    return {"found": matches, "counts": counts, "unread": {page.label: reason for page, reason in unread.items()}}


def page_results(config: Find, matches: Mapping[str, PageMatches], unread: Mapping[Page, str]) -> report.Results:
    """The report's tables: the first pages' matches, and the pages that could not be searched."""
    blocks = match_tables(dict(list(matches.items())[:MAX_REPORTED_PAGES]))
    shown_count = min(len(matches), MAX_REPORTED_PAGES)
    omitted_count = len(matches) - shown_count
    if omitted_count:
        blocks.append(
            f"These are the first {shown_count} of {len(matches)} pictures; {omitted_count} more are in {config.out}."
        )
    if unread:
        rows = [[reason] for reason in unread.values()]
        blocks.append([["pictures that could not be searched"], *rows])
    return blocks


def search_many(config: Find, files: Sequence[Path], search_all: SearchFiles, templates: Templates) -> dict[str, Any]:
    """Searches files into Parquet parts, and prints only how many there were."""
    from ._lib import find_parquet  # pyarrow, which it needs, takes long to import

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
    scales = tuple(map(str, find_demo.SCALES))
    angles = tuple(map(str, find_demo.ANGLES))
    config = dataclasses.replace(config, scales=scales, angles=angles, top_k=2 * len(placed))
    search = make_search(templates, tile=config.tile, **find_arguments(config))
    matches = match_records(search(picture[None])[0], templates.names)
    errors, false_alarms = find_demo.evaluate(matches.records, placed)
    save_picture(picture, out / "picture.png")
    save_picture(draw_matches(picture, matches.records, templates.names), out / "found.png")
    precision = {"median": np.median(errors), "largest": max(errors)} if errors else {}
    metrics = {"placed": len(placed), "right": len(errors), "false": false_alarms, "error_pixels": precision}
    metrics |= {"found": {"demonstration": matches.records}, "counts": {"demonstration": matches.found}}
    summary = [
        f"{len(errors)} of {len(placed)} found with the right shape, scale and angle; {false_alarms} false alarms"
    ]
    if errors:
        summary.append(f"Position error: {precision['median']:.3f} pixels (median), {precision['largest']:.3f} at most")
    by_label = {"demonstration": matches}
    write_results(config, metrics, by_label, [*summary, *match_tables(by_label)], DEMONSTRATION_FIGURES)
    if not config.json:
        print("\n".join([*summary, f"pictures are in {out}"]))
    return metrics


def write_results(
    config: Find,
    metrics: Mapping[str, Any],
    matches: Mapping[str, PageMatches],
    results: report.Results,
    figures: Mapping[str, str],
) -> None:
    """Writes metrics.json and report.html, and prints all matches as JSON or as tables."""
    write_metrics(config, metrics)
    report.write_html(config.out, "find", config, results, figures)
    print(json.dumps(metrics["found"], indent=2) if config.json else report.as_text(match_tables(matches)))


def write_metrics(config: Find, metrics: Mapping[str, Any]) -> None:
    """Writes metrics.json, with the options and the versions."""
    cli.write_json(config.out / "metrics.json", {**metrics, "options": search_options(config), **cli.versions()})


if __name__ == "__main__":
    cli.run_script(lambda: main(cli.parse_options(Find, "find", __doc__)))
