"""Does a search find a template at its exact place, angle and scale?

Templates are cut from three of scikit-image's photos: a portrait, a cup of coffee and a motorcycle. They have 80x120 to
762x521 pixels, and at least half their photo's contrast. The search images are made, so that the truth is known: the
photo turned by a random angle, in one of the sizes also scaled by 0.7 to 1.4 ("turned"), or other photos with the
turned template alone ("pasted"). They are then degraded: Gaussian noise of 25 of 255 gray levels, a blur of 1.5 pixels,
less light (0.6 times the levels, plus 40), or all of these. A pose is right within 2 pixels, 2 degrees and 3 % of the
scale. Errors are medians over the right poses.

Limits: every template is wholly visible, flat, and seen from the front. There are no second shots of a thing, no
perspective, no shadows, and no smaller or weaker textures. Other photos may be harder.

A match has a lowest score: for `find` its default (0.88, and 0.92 with unknown scale), for OpenCV 0.5. The table of
scores has both sides of it: the highest score in 20 other photos, which do not contain the template, and the lowest
score of a right pose, over all degradations.

All searches get the same images. They alternate in random order; times are medians over all calls but the first.
The OpenCV pyramid, and the OpenCV loop of one masked matchTemplate for each angle and scale, are in
`_lib/opencv_search.py`.

    python -m experiments.poses                                     640x480 pixels, template of 80x120
    python -m experiments.poses --sizes 1280x960 --poses 5          another size; 5 poses of each photo
    python -m experiments.poses --searches find --degradations all  one search, one degradation
    python -m experiments.poses --scenes pasted                     only templates on other photos
    python -m experiments.poses --quick                             a test run, in seconds
"""

import dataclasses
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ._lib import baselines_matching, cli, find_poses, photos, pose_report, report, runner
from ._lib.benchmark import pin_cpus
from ._lib.find_poses import DEGRADATIONS, SCENES, SIZES, Pose, PoseCase, SceneSize, Search
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
    scenes: tuple[str, ...] = SCENES
    """What is around the template: turned (its own photo), pasted (other photos)."""
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
    """A call of a search, its best pose and the time it took."""

    found: Pose | None
    milliseconds: float
    cpu_milliseconds: float


def call_search(search: Search, image: np.ndarray, template: np.ndarray) -> Trial:
    """Calls a search and measures its time."""
    cpu_start = time.process_time()
    start = time.perf_counter()
    found = search.best_pose(image, template)
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
                    searches[name].best_pose(image, case.template)  # compiles
                trial = call_search(searches[name], image, case.template)
                rows.append(row_of(name, searches[name].min_score, degradation, number, case, trial))
    return rows


def row_of(
    search: str, min_score: float, degradation: str, number: int, case: PoseCase, trial: Trial
) -> dict[str, Any]:
    """One call as plain numbers for metrics.json; a pose below the lowest score is not right."""
    error = None if trial.found is None else find_poses.pose_error(trial.found, case.truth)
    is_match = trial.found is not None and trial.found.score >= min_score
    return {
        "search": search,
        "scene": case.scene,
        "degradation": degradation,
        "case": number,
        "photo": case.photo,
        "truth": case.truth._asdict(),
        "found": None if trial.found is None else trial.found._asdict(),
        "error": None if error is None else error._asdict(),
        "near": error is not None and error.is_right,
        "right": error is not None and error.is_right and is_match,
        "ms": trial.milliseconds,
        "cpu_ms": trial.cpu_milliseconds,
    }


def search_absent(
    searches: Mapping[str, Search], templates: Mapping[str, np.ndarray], scenes: Sequence[np.ndarray]
) -> list[dict[str, Any]]:
    """The best pose of every search and template in every scene, none of which contains the template."""
    rows = []
    for name, search in searches.items():
        for photo, template in templates.items():
            for index, scene in enumerate(scenes):
                found = search.best_pose(scene, template)
                if found is not None:
                    row = {"search": name, "template": photo, "scene": photos.OTHER_PHOTOS[index]}
                    rows.append(row | {"found": found._asdict(), "alarm": found.score >= search.min_score})
    return rows


def evaluate(searches: Mapping[str, Search], size: SceneSize, config: Poses) -> dict[str, Any]:
    """Right poses, errors, times and false alarms of searches in one size of search image."""
    names = QUICK_PHOTOS if config.quick else photos.TEMPLATE_PHOTOS
    poses = QUICK_POSES if config.quick else config.poses
    absent = min(QUICK_ABSENT if config.quick else len(photos.OTHER_PHOTOS), config.absent)
    rows = []
    for scene in config.scenes:
        cases = find_poses.pose_cases(size, poses, config.seed, names, scene)
        rows += compare(searches, cases, config.degradations, config.seed)
    templates = {case.photo: case.template for case in find_poses.pose_cases(size, 1, config.seed, names)}
    absent_scenes = [find_poses.absent_scene(size, first) for first in range(absent)]
    absent_rows = search_absent(searches, templates, absent_scenes)
    min_scores = {name: search.min_score for name, search in searches.items()}
    return {
        "size": size._asdict(),
        "summary": pose_report.summarize(rows),
        "scores": pose_report.summarize_scores(min_scores, rows, absent_rows),
        "rows": rows,
        "absent": absent_rows,
    }


def main(config: Poses) -> dict[str, Any]:
    """Compares the searches in every size, prints and writes; returns the content of metrics.json."""
    sizes = QUICK_SIZES if config.quick else choose("--sizes", config.sizes, SIZES)
    makers = choose("--searches", config.searches, SEARCHES)
    choose("--scenes", config.scenes, dict.fromkeys(SCENES))
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
        print(report.as_text(pose_report.blocks(name, results[name])), flush=True)
    metrics = {"sizes": results, "config": runner.options_as_text(config)}
    cli.write_json(out / "metrics.json", metrics | cli.versions())
    tables = [block for name, result in results.items() for block in pose_report.blocks(name, result)]
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


if __name__ == "__main__":
    cli.run_script(lambda: main(cli.parse_options(Poses, "poses", __doc__)))
