"""Where in these pictures is this template, however it is scaled and turned?

Claim: of 40 shapes at 3 scales and 8 angles in noise (standard deviation 0.3, where black to white is 2) all are found,
with the right scale and angle and no false alarm; with seed 0 all are within 0.1 pixels of their places.
Evidence: what `python -m experiments.find` prints for its own picture; runs/find/metrics.json holds every match.

    python -m experiments.find                                        search the demonstration picture
    python -m experiments.find PHOTO.jpg --template LOGO.png          find one in the other
    python -m experiments.find FOLDER --template A.png B.png --scales 0.5 1 --angles 0 90 180 270 --json
"""

import collections
import dataclasses
import functools
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from jax.sharding import Mesh, PartitionSpec
from PIL import Image, ImageDraw

import cnn_jax
from cnn_jax.data import image_io
from cnn_jax.figures import COLORS
from cnn_jax.files import atomic_write
from cnn_jax.progress import Progress

from ._lib import cli, find_demo, find_parquet, report, runner

SCORES = {"zncc": cnn_jax.zncc, "cosine": cnn_jax.cosine, "match": cnn_jax.match}
MOST, AT_ONCE = 8, 4_000_000  # pictures of one size searched together, and the numbers in them
WAITING = 50_000_000  # numbers in pictures that wait for others of their size
SHOWN = 6  # pictures in report.html
FORMATS = {"y": ".3f", "x": ".3f", "scale": "g", "angle": "g", "score": ".4f"}
DEMONSTRATION = {
    "picture.png": "The picture: three hand-drawn shapes in noise",
    "found.png": "What was found: outlines, a colour for each shape, and scores",
}
ASKED = ("scales", "angles", "score", "min_score", "top_k", "max_overlap", "seed")


@dataclasses.dataclass(frozen=True)
class Find:
    """Find templates in pictures; without any pictures, in one that the script draws itself."""

    pictures: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Picture files, and folders of them."""
    template: tuple[Path, ...] = ()
    """Template files. Transparent pixels do not count. Colours count if a template has any."""
    mask: tuple[Path, ...] = ()
    """One picture for each template, of its size: black where its pixels do not count."""
    scales: tuple[float, ...] = (1.0,)
    """Factors to try."""
    angles: tuple[float, ...] = (0.0,)
    """Degrees counterclockwise to try."""
    score: Literal["zncc", "cosine", "match"] = "zncc"
    """What to compare by."""
    min_score: float = 0.7
    """What a match must reach."""
    top_k: int = 10
    """Matches in each picture, at most."""
    max_overlap: float = 0.25
    """How much two matches may overlap: intersection over union of their upright boxes."""
    json: bool = False
    """Print JSON in place of a table."""
    parquet: bool = False
    """For many pictures: write the matches into parts, OUT/matches/part-*.parquet, and nothing else of a picture."""
    resume: bool = True
    """Leave out pictures that parts of the same search hold already; else start anew."""
    devices: int | None = None
    """Devices of each process that share the pictures. CPUs are made as many as asked for."""
    distributed: tuple[str, ...] = ()
    """This is one of several processes that share the pictures; as for the scripts that train."""
    seed: int = 0
    """Of the picture that the script draws."""
    out: Path = Path("runs/find")
    """Folder for report.html, metrics.json and copies of the pictures with boxes drawn."""


def main(config: Find) -> dict[str, Any]:
    """Searches, prints and draws; returns what metrics.json holds."""
    if bool(config.pictures) != bool(config.template):
        raise ValueError("pictures and --template: expected both, or neither for the demonstration")
    ours = [
        name
        for name in ("mask", "scales", "angles", "top_k", "parquet")
        if getattr(config, name) != getattr(Find(), name)
    ]
    if ours and not config.pictures:
        raise ValueError(f"--{ours[0].replace('_', '-')}: the demonstration has its own; expected pictures with it")
    if math.isnan(config.min_score):
        raise ValueError("--min-score: expected a number, got nan")
    if config.distributed and not config.parquet:
        raise ValueError("--distributed: processes share pictures into parts; expected --parquet with it")
    return search_files(config) if config.pictures else demonstrate(config)


def search_files(config: Find) -> dict[str, Any]:
    """Searches picture files; one that cannot be read stops no other, but makes the exit code 2."""
    names = [path.name for path in config.template]
    if len(set(names)) < len(names):
        names = [str(path) for path in config.template]
    features, masks = read_templates(config.template, config.mask, config.score)
    mesh = runner.connect_devices(config.devices, config.distributed)
    search = searcher(config, features, masks, mesh and mesh.local_mesh)
    files = list(dict.fromkeys(listed(config.pictures)))
    if not files:
        raise ValueError(f"pictures: no picture file in {', '.join(map(str, config.pictures))}")
    out = cli.make_output_dir(config.out)
    devices = 1 if mesh is None else mesh.local_mesh.size
    searched = functools.partial(
        search_each, search=search, channels=features[0].shape[2:], names=names, devices=devices
    )
    if config.parquet:
        return search_many(config, files, searched, find_parquet.digest([*features, *masks]))
    found, unread, drawn = {}, {}, {}
    with Progress("searching", len(files), show=len(files) > 1) as bar:
        for path, matches in searched(files):
            if isinstance(matches, str):
                unread[path] = matches
            else:
                found[path] = matches
                boxed = draw_boxes(on_white(image_io.read_color(path)), matches, features, names)
                drawn[str(path)] = f"{len(found) + len(unread):04d}_{path.stem[:50]}.png"
                save_picture(boxed, out / drawn[str(path)])
            bar.update(len(found) + len(unread))
    found = {str(path): found[path] for path in files if path in found}
    metrics = {"found": found, "unread": {str(path): why for path, why in unread.items()}}
    first = list(found)[:SHOWN]
    said = came_out({name: found[name] for name in first})
    if len(found) > SHOWN:
        said.append(f"These are the first {SHOWN} of {len(found)} pictures; {len(found) - SHOWN} more are in {out}.")
    if unread:
        said.append([["pictures that could not be searched"], *([why] for why in unread.values())])
    finish(config, metrics, said, {drawn[name]: f"{name}: {len(found[name])} found" for name in first})
    if unread:
        sys.stdout.flush()
        for why in unread.values():
            print(why, file=sys.stderr)
        cli.exit_with_error(f"{len(unread)} of {len(files)} pictures could not be searched")
    return metrics


def search_each(
    files: Sequence[Path],
    search: Callable[[np.ndarray], list[cnn_jax.Matches]],
    channels: tuple[int, ...],
    names: Sequence[str],
    devices: int,
) -> Iterator[tuple[Path, list[dict[str, Any]] | str]]:
    """Each file with its matches, or with why it could not be searched, in whatever order."""
    unread = {}
    for batch in batches(files, channels, unread, devices):
        yield from unread.items()
        unread.clear()
        try:
            results = [listing(matches, names) for matches in search(np.stack(list(batch.values())))]
        except ValueError as error:  # smaller than all templates
            results = [f"{path}: {cli.one_line_error(error)}" for path in batch]
        yield from zip(batch, results, strict=True)
    yield from unread.items()


def search_many(
    config: Find, files: Sequence[Path], searched: Callable[[Sequence[Path]], Any], templates: str
) -> dict[str, Any]:
    """Searches into Parquet parts, and prints no more than how many."""
    asked = {name: getattr(config, name) for name in ASKED} | {"templates": templates}
    folder = config.out / "matches"
    metrics = find_parquet.search_all(files, folder, asked, searched, resume=config.resume)
    if jax.process_index() == 0:
        cli.write_json(config.out / "metrics.json", metrics | options(config))
        counted = [[name.replace("_", " ") for name in metrics], [f"{value:,.6g}" for value in metrics.values()]]
        report.write_html(config.out, "find", config, [counted])
    print(
        f"{metrics['searched']} pictures searched, {metrics['unread']} could not be, {metrics['matches']} matches; "
        f"{metrics['pictures_per_s']:.1f} pictures a second; everything is in {folder}"
    )
    return metrics


def demonstrate(config: Find) -> dict[str, Any]:
    """Searches the script's own picture, and says how much of what is in it was found and how precisely."""
    out = cli.make_output_dir(config.out)
    image, placed = find_demo.picture(config.seed)
    names, features = zip(*find_demo.templates().items(), strict=True)
    asked = dataclasses.replace(config, scales=find_demo.SCALES, angles=find_demo.ANGLES, top_k=2 * len(placed))
    (matches,) = searcher(asked, features, [None] * len(features))(image[None])
    found = listing(matches, names)
    errors, rest = [], list(found)
    for one in placed:
        right = [each for each in rest if is_right(each, one)]
        if right:
            rest.remove(right[0])
            errors.append(math.hypot(*miss(right[0], one)))
    save_picture(image, out / "picture.png")
    save_picture(draw_boxes(image, found, features, names), out / "found.png")
    precision = {"median": np.median(errors), "largest": max(errors)} if errors else {}
    metrics = {"placed": len(placed), "right": len(errors), "false": len(rest), "error_pixels": precision}
    metrics |= {"found": {"demonstration": found}}
    said = [f"{len(errors)} of {len(placed)} found with the right shape, scale and angle, {len(rest)} false"]
    if errors:
        said.append(f"Off by {precision['median']:.3f} pixels (median), {precision['largest']:.3f} at most")
    finish(asked, metrics, [*said, *came_out(metrics["found"])], DEMONSTRATION)
    if not config.json:
        print("\n".join([*said, f"pictures in {out}"]))
    return metrics


def is_right(match: dict[str, Any], placed: find_demo.Placed) -> bool:
    """Whether a match is of this shape, scale and angle and no more than a pixel off either way."""
    same = (match["template"], match["scale"], match["angle"]) == (placed.shape, placed.scale, placed.angle)
    return same and max(map(abs, miss(match, placed))) < 1


def miss(match: dict[str, Any], placed: find_demo.Placed) -> tuple[float, float]:
    """How many pixels too low and too far right a match is."""
    middle = [match[place] + (match[size] - 1) / 2 for place, size in (("y", "height"), ("x", "width"))]
    return middle[0] - placed.y, middle[1] - placed.x


def read_templates(
    paths: Sequence[Path], masks: Sequence[Path], score: str
) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """Templates, in grey if none has colours, and which of their pixels count, None for all."""
    if masks and len(masks) != len(paths):
        raise ValueError(f"--mask: expected one for each of the {len(paths)} templates, got {len(masks)}")
    read = [image_io.read_color(path) for path in paths]
    coloured = any(np.ptp(picture[..., :3], axis=-1).max() > 0.02 for picture in read)
    features = [picture[..., :3] if coloured else grey(picture) for picture in read]
    counts = [picture[..., 3] >= 0.5 for picture in read]
    for i, path in enumerate(masks):
        white = grey(image_io.read_color(path)) > 0
        if white.shape != counts[i].shape:
            raise ValueError(f"{path}: expected the size of {paths[i]} {counts[i].shape}, got {white.shape}")
        counts[i] &= white
    for path, feature, count in zip(paths, features, counts, strict=True):
        if not count.any():
            raise ValueError(f"{path}: no pixel of it counts")
        if score == "zncc" and np.ptp(feature[count]) == 0:
            raise ValueError(f"{path}: all its pixels are alike, and zncc finds what has contrast")
    spread = [np.broadcast_to(c[..., None], f.shape) if coloured else c for c, f in zip(counts, features, strict=True)]
    return features, [None if count.all() else count for count in spread]


def on_white(picture: np.ndarray) -> np.ndarray:
    """The colours of a picture as they show on white paper."""
    return 1 + (picture[..., :3] - 1) * picture[..., 3:]


def grey(picture: np.ndarray) -> np.ndarray:
    """Brightness of red, green and blue, as television weighs them."""
    return picture[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)


def searcher(
    config: Find, features: Sequence[np.ndarray], masks: Sequence[np.ndarray | None], mesh: Mesh | None = None
) -> Callable[[np.ndarray], list[cnn_jax.Matches]]:
    """A function that searches a stack of pictures; raises a ValueError now if the options are wrong."""
    find = functools.partial(
        cnn_jax.find,
        features=list(features),
        mask=None if all(mask is None for mask in masks) else list(masks),
        score=SCORES[config.score],
        scales=config.scales,
        angles=tuple(map(math.radians, config.angles)),
        top_k=config.top_k,
        min_score=config.min_score,
        max_overlap=config.max_overlap,
    )
    wide = max(1, math.ceil(2 * min(config.scales, default=1.0) * max(max(feature.shape) for feature in features)))
    jax.eval_shape(find, jax.ShapeDtypeStruct((wide, wide, *features[0].shape[2:]), np.float32))
    batched, parts = jax.vmap(find), 1 if mesh is None else mesh.size
    if mesh is not None:  # each device searches its own pictures
        whole = PartitionSpec(mesh.axis_names)
        batched = jax.shard_map(batched, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False)
    batched = jax.jit(batched)

    def search(stack: np.ndarray) -> list[cnn_jax.Matches]:
        more = -len(stack) % parts
        matches = jax.device_get(batched(np.pad(stack, [(0, more)] + [(0, 0)] * (stack.ndim - 1))))
        return [cnn_jax.Matches(*(field[i] for field in matches)) for i in range(len(stack))]

    return search


def listed(paths: Sequence[Path]) -> Iterator[Path]:
    """The files named, and the picture files in the folders named and in those inside them."""
    endings = Image.registered_extensions()
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.suffix.lower() in endings and file.is_file())
        else:
            yield path


def batches(
    files: Sequence[Path], channels: tuple[int, ...], unread: dict[Path, str], devices: int
) -> Iterator[dict[Path, Any]]:
    """Pictures of one size together, as many as always fit. Those that are left at the end, or wait while too many of
    other sizes come, come one by one, so that no third program need be compiled. Notes why a picture could not be read.
    """
    waiting = collections.defaultdict(dict)
    for path in files:
        try:
            picture = image_io.read_color(path)
        except (ValueError, OSError) as error:
            unread[path] = cli.one_line_error(error)
            continue
        picture = on_white(picture) if channels else grey(on_white(picture))
        waiting[picture.shape][path] = picture
        if len(waiting[picture.shape]) >= devices * min(MOST, max(1, AT_ONCE // picture.size)):
            yield waiting.pop(picture.shape)
        while sum(math.prod(shape) * len(group) for shape, group in waiting.items()) > WAITING:
            yield from ({path: picture} for path, picture in waiting.pop(next(iter(waiting))).items())
    for group in waiting.values():
        yield from ({path: picture} for path, picture in group.items())


def listing(matches: cnn_jax.Matches, names: Sequence[str]) -> list[dict[str, Any]]:
    """The valid matches, readable: names for numbers, degrees for radians."""
    return [
        {
            "template": names[int(matches.feature[i])],
            "y": round(float(matches.y[i]), 3),
            "x": round(float(matches.x[i]), 3),
            "height": int(matches.height[i]),
            "width": int(matches.width[i]),
            "scale": round(float(matches.scale[i]), 6),
            "angle": round(math.degrees(matches.angle[i]), 3),
            "score": round(float(matches.score[i]), 4),
        }
        for i in np.flatnonzero(matches.valid)
    ]


def draw_boxes(
    picture: np.ndarray, found: Sequence[dict[str, Any]], features: Sequence[np.ndarray], names: Sequence[str]
) -> np.ndarray:
    """A copy of the picture, in colours, with the outline of each match, a colour a template, and its score."""
    copy = Image.fromarray(cli.to_uint8(picture)).convert("RGB")
    pen = ImageDraw.Draw(copy)
    for match in found:
        number = names.index(match["template"])
        colour = COLORS[number % len(COLORS)]
        half = [side * match["scale"] / 2 for side in features[number].shape[:2]]
        middle = [match[place] + (match[size] - 1) / 2 for place, size in (("y", "height"), ("x", "width"))]
        cos, sin = (function(math.radians(match["angle"])) for function in (math.cos, math.sin))
        corners = [(half[0] * down, half[1] * right) for down, right in ((-1, -1), (-1, 1), (1, 1), (1, -1))]
        outline = [(middle[1] + sin * y + cos * x, middle[0] + cos * y - sin * x) for y, x in corners]
        pen.polygon(outline, outline=colour, width=2)
        pen.text((match["x"], match["y"] - 11), f"{match['score']:.2f}", fill=colour)
    return np.asarray(copy)


def save_picture(picture: np.ndarray, path: Path) -> None:
    """Writes a picture of levels 0 to 255, or of -1 to 1."""
    levels = picture if picture.dtype == np.uint8 else cli.to_uint8(picture)
    with atomic_write(path) as temporary:
        Image.fromarray(levels).save(temporary)


def options(config: Find) -> dict[str, Any]:
    """What was asked for, and what the figures depend on."""
    asked = dataclasses.asdict(config)
    return {"options": {name: asked[name] for name in ASKED}} | cli.versions()


def finish(config: Find, metrics: dict[str, Any], said: Sequence[str | report.Table], figures: dict[str, str]) -> None:
    """Writes metrics.json and report.html, and prints the matches as JSON or as tables."""
    cli.write_json(config.out / "metrics.json", metrics | options(config))
    report.write_html(config.out, "find", config, said, figures)
    print(json.dumps(metrics["found"], indent=2) if config.json else report.as_text(came_out(metrics["found"])))


def came_out(found: dict[str, list[dict[str, Any]]]) -> list[str | report.Table]:
    """How many matches each picture has, and a table of them."""
    blocks: list[str | report.Table] = []
    for picture, matches in found.items():
        blocks.append(f"{picture}: {len(matches)} found")
        if matches:
            rows = [[format(value, FORMATS.get(name, "")) for name, value in match.items()] for match in matches]
            blocks.append([list(matches[0]), *rows])
    return blocks


if __name__ == "__main__":
    cli.run_script(lambda: main(tyro.cli(Find, description=__doc__)))
