"""Does a search find a template at its exact place, angle and scale?

Templates are cut from three real photos, scikit-image's. The photos are turned by random angles, and in one of the
sizes scaled by 0.7 to 1.4. The search images are then degraded: Gaussian noise of 25 of 255 gray levels, a blur of 1.5
pixels, less light (0.6 times the levels, plus 40), or all of these. A pose is right within 2 pixels, 2 degrees and 3 %
of the scale. Errors are medians over the right poses. False alarms are matches in 20 other photos. Every search has one
lowest score for all of this: `find` its default, 0.88, OpenCV 0.5.

All searches get the same images. They alternate in random order; times are medians over all calls but the first.
The OpenCV pyramid, and the OpenCV loop of one masked matchTemplate for each angle and scale, are in
`_lib/opencv_search.py`.

    python -m experiments.poses                                     640x480 pixels, template of 80x120
    python -m experiments.poses --sizes 1280x960 --poses 5          another size; 5 poses of each photo
    python -m experiments.poses --searches find --degradations all  one search, one degradation
    python -m experiments.poses --quick                             a test run, in seconds
"""

import dataclasses
import itertools
import math
import random
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ._lib import baselines_matching, cli, find_poses, photos, report, runner
from ._lib.benchmark import pin_cpus
from ._lib.find_poses import DEGRADATIONS, SIZES, Pose, PoseCase, PoseError, SceneSize, Search
from ._lib.pose_searches import SEARCHES

Value = TypeVar("Value")

CPUS = 2
QUICK_SIZES = {"160x120": SceneSize((120, 160), (40, 30))}
QUICK_POSES = 1
QUICK_PHOTOS = photos.TEMPLATE_PHOTOS[:1]
QUICK_ABSENT = 1


@dataclasses.dataclass(frozen=True)
class Poses:
    """Compare the poses that searches find with the known truth."""

    sizes: tuple[str, ...] = ("640x480",)
    """Sizes of the search image: 640x480, 1000x1000, 1280x960 (with unknown scale), 2160x1620, 4000x3000."""
    searches: tuple[str, ...] = ("find", "opencv-pyramid")
    """Searches to compare: find, opencv-pyramid, opencv-loop."""
    degradations: tuple[str, ...] = DEGRADATIONS
    """What is done to the search images: clean, noise, blur, light, all."""
    poses: int = 20
    """Random poses of each of three photos."""
    absent: int = 20
    """Photos without the template in which false alarms are counted; 0 to 20."""
    seed: int = 0
    """Seed of the templates, the poses and the noise."""
    quick: bool = False
    """Test that everything works: one pose in a small image, in seconds."""
    out: Path = Path("runs/poses")
    """Folder for report.html and metrics.json."""


class Trial(NamedTuple):
    """A call of a search."""

    found: Pose | None
    milliseconds: float
    cpu_milliseconds: float


def call_search(search: Search, image: np.ndarray, template: np.ndarray) -> Trial:
    """Calls a search and measures its time."""
    cpu_start = time.process_time()
    start = time.perf_counter()
    found = search(image, template)
    milliseconds = 1e3 * (time.perf_counter() - start)
    return Trial(found, milliseconds, 1e3 * (time.process_time() - cpu_start))


def compare(
    searches: Mapping[str, Search], cases: Iterable[PoseCase], degradations: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """A row for every search, case and degradation: the truth, what was found, and how long it took.

    The searches alternate. Each is called once before it is timed.
    """
    rows = []
    shuffler = random.Random(seed)
    order = list(searches)
    for number, case in enumerate(cases):
        for degradation in degradations:
            generator = np.random.default_rng((seed, number, DEGRADATIONS.index(degradation)))
            image = find_poses.degrade(case.image, degradation, generator)
            shuffler.shuffle(order)
            for name in order:
                if not any(row["search"] == name for row in rows):
                    searches[name](image, case.template)  # compiles
                trial = call_search(searches[name], image, case.template)
                rows.append(row_of(name, degradation, number, case, trial))
    return rows


def row_of(search: str, degradation: str, number: int, case: PoseCase, trial: Trial) -> dict[str, Any]:
    """One call as plain numbers for metrics.json."""
    error = None if trial.found is None else find_poses.pose_error(trial.found, case.truth)
    return {
        "search": search,
        "degradation": degradation,
        "case": number,
        "photo": case.photo,
        "truth": case.truth._asdict(),
        "found": None if trial.found is None else trial.found._asdict(),
        "error": None if error is None else error._asdict(),
        "right": error is not None and error.is_right,
        "ms": trial.milliseconds,
        "cpu_ms": trial.cpu_milliseconds,
    }


def summarize(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For every degradation and search the number of right poses, and medians of errors and times."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["degradation"], row["search"]), []).append(row)
    return [
        {
            "degradation": degradation,
            "search": search,
            "cases": len(members),
            "right": sum(row["right"] for row in members),
            **{name: median_error(members, name) for name in PoseError._fields},
            **{unit: statistics.median(row[unit] for row in members) for unit in ("ms", "cpu_ms")},
        }
        for (degradation, search), members in sorted(groups.items(), key=lambda group: rank(*group[0]))
    ]


def rank(degradation: str, search: str) -> tuple[int, str]:
    """The order of a row in the tables."""
    return DEGRADATIONS.index(degradation), search


def median_error(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """The median of an error over the right poses; NaN without a right pose."""
    errors = [row["error"][name] for row in rows if row["right"]]
    return statistics.median(errors) if errors else math.nan


def false_alarms(
    searches: Mapping[str, Search], templates: Mapping[str, np.ndarray], scenes: Sequence[np.ndarray]
) -> dict[str, list[dict[str, Any]]]:
    """For every search its matches of templates in scenes that do not contain them, at the default lowest score."""
    alarms: dict[str, list[dict[str, Any]]] = {name: [] for name in searches}
    for name, search in searches.items():
        for photo, template in templates.items():
            for index, scene in enumerate(scenes):
                found = search(scene, template)
                if found is not None:
                    alarms[name].append({"template": photo, "scene": photos.OTHER_PHOTOS[index], **found._asdict()})
    return alarms


def evaluate(searches: Mapping[str, Search], size: SceneSize, config: Poses) -> dict[str, Any]:
    """Right poses, errors, times and false alarms of searches in one size of search image."""
    names = QUICK_PHOTOS if config.quick else photos.TEMPLATE_PHOTOS
    poses = QUICK_POSES if config.quick else config.poses
    absent = min(QUICK_ABSENT, config.absent) if config.quick else config.absent
    rows = compare(searches, find_poses.pose_cases(size, poses, config.seed, names), config.degradations, config.seed)
    templates = {case.photo: case.template for case in find_poses.pose_cases(size, 1, config.seed, names)}
    scenes = list(itertools.islice(find_poses.absent_scenes(size), absent))
    return {
        "size": size._asdict(),
        "summary": summarize(rows),
        "searches_without_template": len(scenes) * len(templates),
        "false_alarms": false_alarms(searches, templates, scenes),
        "rows": rows,
    }


def main(config: Poses) -> dict[str, Any]:
    """Compares the searches in every size, prints and writes; returns the content of metrics.json."""
    sizes = QUICK_SIZES if config.quick else choose("--sizes", config.sizes, SIZES)
    makers = choose("--searches", config.searches, SEARCHES)
    choose("--degradations", config.degradations, dict.fromkeys(DEGRADATIONS))
    cli.check_positive("--poses", config.poses)
    cli.check_not_negative("--absent", config.absent)
    cli.check_not_negative("--seed", config.seed)
    out = cli.make_output_dir(config.out)
    modules, missing = baselines_matching.import_libraries(["opencv"], pin_cpus(CPUS))
    if "opencv" not in modules:
        makers = {name: make for name, make in makers.items() if not name.startswith("opencv")}

    results = {}
    for name, size in sizes.items():
        searches = {search: make(size, modules) for search, make in makers.items()}
        results[name] = evaluate(searches, size, config)
        print(report.as_text(blocks(name, results[name])), flush=True)
    metrics = {"sizes": results, "config": runner.options_as_text(config)}
    cli.write_json(out / "metrics.json", metrics | cli.versions())
    tables = [block for name, result in results.items() for block in blocks(name, result)]
    report.write_html(out, "poses", config, [*tables, *missing])
    print("\n".join(missing))
    return metrics


def choose(option: str, names: Sequence[str], choices: Mapping[str, Value]) -> dict[str, Value]:
    """The choices of these names.

    Raises:
      ValueError: there is no name, or one is unknown; the message names the option.
    """
    if not names or not set(names) <= choices.keys():
        raise ValueError(f"{option}: expected some of {', '.join(choices)}, got {' '.join(names) or 'none'}")
    return {name: choices[name] for name in names}


def blocks(name: str, result: Mapping[str, Any]) -> report.Results:
    """The table of a size, its failures and its false alarms."""
    has_scales = result["size"]["scale_range"][0] < result["size"]["scale_range"][1]
    head = ["degradation", "search", "right poses", "pixels", "degrees", "scale", "ms", "CPU ms"]
    table = [head] + [
        [
            row["degradation"],
            row["search"],
            f"{row['right']}/{row['cases']}",
            f"{row['pixels']:.4f}",
            f"{row['degrees']:.4f}",
            f"{100 * row['scale']:.3f} %" if has_scales else "-",
            f"{row['ms']:.0f}",
            f"{row['cpu_ms']:.0f}",
        ]
        for row in result["summary"]
    ]
    lines = [
        f"{search}: {len(alarms)} false alarms in {result['searches_without_template']} searches"
        for search, alarms in result["false_alarms"].items()
    ]
    template = "x".join(map(str, reversed(result["size"]["template"])))
    return [f"{name} pixels, template of {template} pixels:", table, *failures(result["rows"]), *lines]


def failures(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for every wrong pose."""
    return [
        f"wrong: {row['search']}, {row['degradation']}, case {row['case']} ({row['photo']}): "
        f"truth {pose_text(row['truth'])}, found {pose_text(row['found']) if row['found'] else 'nothing'}"
        for row in rows
        if not row["right"]
    ]


def pose_text(pose: Mapping[str, float]) -> str:
    """A pose for people: place, angle in degrees, scale and score."""
    angle = math.degrees(pose["angle"])
    return f"({pose['y']:.1f}, {pose['x']:.1f}) {angle:.1f}° x{pose['scale']:.3f} ({pose['score']:.2f})"


if __name__ == "__main__":
    cli.run_script(lambda: main(cli.parse_options(Poses, "poses", __doc__)))
