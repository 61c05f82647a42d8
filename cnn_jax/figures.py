"""Figures of arrays. White is 1 and black is -1, as in the article; every function returns a matplotlib Figure."""

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from .files import atomic_write

try:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("cnn_jax.figures needs matplotlib: pip install 'cnn_jax[experiments]'") from error

# Okabe and Ito's colours, told apart by the colour-blind too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^v*P"
# What speaks for and against; the colour-blind tell these apart too.
POSITIVE_COLOR, NEGATIVE_COLOR = (0.90, 0.38, 0.0), (0.37, 0.24, 0.60)
NUMBERS_UP_TO = 12
WRITTEN_UP_TO = 40
NAMED = 100
LONGEST_SIDE = 20  # inches
BACKGROUND_CONTRAST = 0.4  # of the contrast of an image with something over it


def image_grid(
    images: Sequence[Any] | np.ndarray,
    titles: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    title: str = "",
    numbers: bool = False,
    limit: float = 1.0,
) -> Figure:
    """Images side by side on one scale, -limit black and limit white; `numbers` writes small images' values into them.

    Images are (H, W) or (H, W, 1), or (H, W, 3) of red, green and blue.

    >>> image_grid([np.eye(3), -np.eye(3)], ["a feature", "its negative"]).axes[0].get_title()
    'a feature'
    """
    if len(images) == 0:
        raise ValueError("images: expected at least one, got none")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"titles: expected {len(images)}, one an image, got {len(titles)}")
    columns = min(columns or len(images), len(images))
    rows = -(-len(images) // columns)
    side = 2.6 if numbers else 1.3
    figure = Figure(figsize=(side * columns + 0.2, (side + 0.25) * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for i, (axes, image) in enumerate(zip(grid.flat, images, strict=False)):
        _tile(axes, np.asarray(image, np.float32), limit, numbers)
        axes.set_title(titles[i] if titles is not None else "", fontsize=9, parse_math=False)
    figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def _tile(axes: Axes, image: np.ndarray, limit: float, numbers: bool) -> None:
    axes.axis("on")
    axes.set_xticks([])
    axes.set_yticks([])
    image = image[..., 0] if image.shape[2:] == (1,) else image
    if image.ndim == 3:  # in colour
        axes.imshow(np.clip((image / limit + 1) / 2, 0, 1), interpolation="nearest")
        return
    axes.imshow(image, cmap="gray", vmin=-limit, vmax=limit, interpolation="nearest")
    if numbers and max(image.shape) <= NUMBERS_UP_TO:
        for (y, x), value in np.ndenumerate(image):
            text = f"{value:.0f}" if np.all(image == np.round(image)) else f"{value:.2f}"
            colour = "black" if value > 0.25 * limit else "white"
            axes.text(x, y, text, ha="center", va="center", fontsize=90 / max(image.shape[1] + 4, 8), color=colour)


def stages(named: Mapping[str, Any], *, title: str = "", columns: int = 8) -> Figure:
    """The stack of filtered images of a network: a row for each named stage (H, W, K), up to `columns` images in it.

    Every row has a scale of its own, written beside it: its largest magnitude is white, or black if it is negative.
    Vectors and scores are left out.
    """
    images = {name: np.asarray(stage) for name, stage in named.items() if np.ndim(stage) == 3}
    if not images:
        raise ValueError("named: expected at least one stage of (H, W, C), got none")
    figure = Figure(figsize=(1.1 * columns + 1.2, 1.15 * len(images) + 0.5), layout="constrained")
    grid = figure.subplots(len(images), columns, squeeze=False)
    for row, (name, stage) in zip(grid, images.items(), strict=True):
        limit = max(float(np.abs(stage).max()), 1e-6)
        for i, axes in enumerate(row):
            axes.axis("off")
            if i < stage.shape[2]:
                _tile(axes, stage[..., i], limit, False)
        shape = "x".join(map(str, stage.shape))
        row[0].set_ylabel(f"{name}\n{shape}\n±{limit:.2g}", fontsize=8, parse_math=False)
    figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def overlay(
    image: Any,
    maps: Mapping[str, Any],
    *,
    window: tuple[int, int] = (1, 1),
    limit: float | None = None,
    title: str = "",
) -> Figure:
    """Maps laid over their image: orange where positive, purple where negative, the fuller the larger the magnitude,
    nothing where 0. The scale of a map that is nowhere negative begins at 0.

    Args:
      image: (H, W), (H, W, 1) or (H, W, 3), shown pale.
      maps: (H', W') or (H', W', 1) each, by name, stretched over the image.
      window: how many rows and columns of the image a score looks at: of a map without padding (H - h + 1, W - w + 1),
        (h, w), so that every score lies on the middle of its patch.
      limit: the magnitude that is shown in full colour; by default each map's largest.

    Raises a ValueError for no maps, and names one of another shape.

    >>> figure = overlay(np.zeros((9, 9)), {"match": np.eye(7)}, window=(3, 3))
    >>> [axes.get_title() for axes in figure.axes[:2]]
    ['image', 'match']
    """
    if not maps:
        raise ValueError("maps: expected at least one, got none")
    image = np.asarray(image, np.float32)
    bottom, right = image.shape[0] - 1 - (window[0] - 1) / 2, image.shape[1] - 1 - (window[1] - 1) / 2
    extent = ((window[1] - 1) / 2 - 0.5, right + 0.5, bottom + 0.5, (window[0] - 1) / 2 - 0.5)
    columns = min(len(maps) + 1, 3)
    rows = -(-(len(maps) + 1) // columns)
    figure = Figure(figsize=(3 * columns, 2.8 * rows + 0.3), layout="constrained")
    first, *grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes in grid[len(maps) :]:
        axes.axis("off")
    _tile(first, image, 1.0, False)
    first.set_title("image", fontsize=10)
    for axes, (name, values) in zip(grid, maps.items(), strict=False):
        values = np.nan_to_num(np.asarray(values, np.float32))
        values = values[..., 0] if values.shape[2:] == (1,) else values
        if values.ndim != 2:
            raise ValueError(f"maps: expected (H', W') each, got shape {values.shape} of {name!r}")
        most = limit or max(float(np.abs(values).max()), 1e-6)
        _tile(axes, BACKGROUND_CONTRAST * image, 1.0, False)
        colours = np.where(values[..., None] > 0, POSITIVE_COLOR, NEGATIVE_COLOR)
        opacity = np.clip(np.abs(values) / most, 0, 1)
        axes.imshow(np.dstack([colours, opacity]), extent=extent, interpolation="nearest")
        axes.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
        axes.set_title(name, fontsize=10, parse_math=False)
        lowest = 0 if values.min() >= 0 else -most
        figure.colorbar(ScalarMappable(Normalize(lowest, most), overlay_colormap(lowest)), ax=axes, shrink=0.8)
    figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def overlay_colormap(lowest: float) -> LinearSegmentedColormap:
    """What `overlay` makes of magnitudes on a grey ground: from NEGATIVE_COLOR to POSITIVE_COLOR, or from nothing to POSITIVE_COLOR."""
    ground = (0.5, 0.5, 0.5)
    return LinearSegmentedColormap.from_list(
        "over", [NEGATIVE_COLOR, ground, POSITIVE_COLOR] if lowest < 0 else [ground, POSITIVE_COLOR]
    )


def class_scores(scores: Mapping[str, float], *, xlabel: str = "score", title: str = "") -> Figure:
    """The votes of the last layer, a bar for each class; the winner's is dark.

    >>> class_scores({"X": 0.9, "O": 0.5}).axes[0].get_title()
    'X'
    """
    if not scores:
        raise ValueError("scores: expected at least one, got none")
    winner = max(scores, key=scores.__getitem__)
    figure = Figure(figsize=(5, 0.34 * len(scores) + 1), layout="constrained")
    axes = figure.subplots()
    colours = [COLORS[0] if name == winner else COLORS[5] for name in scores]
    drawn = axes.barh(range(len(scores)), list(scores.values()), color=colours)
    axes.bar_label(drawn, fmt="%.2f", padding=3, fontsize=9)
    axes.set_yticks(range(len(scores)), list(scores), parse_math=False)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.margins(x=0.15)
    axes.set_xlabel(xlabel)
    axes.set_title(title or winner, fontsize=11, parse_math=False)
    return figure


def curves(
    x: Sequence[float] | np.ndarray,
    lines: Mapping[str, Any],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    log: bool = False,
) -> Figure:
    """One line for each name over the same x; with `log` the scale of y is logarithmic."""
    figure = panels({xlabel: (x, lines)}, ylabel=ylabel, title=title)
    if log:
        figure.axes[0].set_yscale("log")
    return figure


def panels(each: Mapping[str, tuple[Any, Mapping[str, Any]]], *, ylabel: str, title: str = "") -> Figure:
    """Curves side by side on one scale: for each quantity x, (x, {name: y})."""
    figure = Figure(figsize=(6.4 if len(each) == 1 else 4 * len(each), 4), layout="constrained")
    grid = figure.subplots(1, len(each), squeeze=False, sharey=True)[0]
    for axes, (quantity, (x, lines)) in zip(grid, each.items(), strict=True):
        for i, (name, y) in enumerate(lines.items()):
            mark = MARKERS[i % len(MARKERS)] if len(x) <= 30 else None
            axes.plot(x, y, label=name, color=COLORS[i % len(COLORS)], marker=mark)
        axes.set_xlabel(quantity)
        axes.grid(alpha=0.3)
    grid[0].set_ylabel(ylabel)
    if len(each) == 1:
        grid[0].set_title(title, fontsize=11, parse_math=False)
    else:
        figure.suptitle(title, fontsize=11, parse_math=False)
    if any(len(lines) > 1 for _, lines in each.values()):
        grid[-1].legend(frameon=False)
    return figure


def power_laws(panels: Mapping[str, Mapping[str, tuple[Any, Any, Any]]], *, ylabel: str, title: str = "") -> Figure:
    """Points (x, y) on logarithmic axes and the line fitted to them, for each name; a panel for each quantity x.

    `panels` has {quantity: {name: (x, y, line)}}, a line being its own (x, y), or None. A dotted line shows how fast
    what is proportional to x grows.
    """
    figure = Figure(figsize=(4.4 * len(panels) + 0.4, 4), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (quantity, lines) in zip(grid, panels.items(), strict=True):
        for i, (name, (x, y, line)) in enumerate(lines.items()):
            colour = COLORS[i % len(COLORS)]
            hollow = {"markerfacecolor": "none", "linestyle": "none", "markersize": 8 - i % 5}
            axes.plot(x, y, label=name, color=colour, marker=MARKERS[i % len(MARKERS)], **hollow)
            if line is not None:
                axes.plot(*line, color=colour)
        x, y, _ = next(iter(lines.values()))
        axes.plot(x, [y[-1] * value / x[-1] for value in x], label="proportional", color="grey", linestyle="dotted")
        axes.set(xscale="log", yscale="log", xlabel=quantity)
        axes.tick_params(axis="x", which="minor", labelbottom=False)  # they would overlap
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    grid[0].set_ylabel(ylabel)
    figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def bars(groups: Mapping[str, Mapping[str, float]], *, ylabel: str, title: str = "") -> Figure:
    """Groups of bars: `{"the X": {"votes for X": 1.0, "votes for O": 0.56}, ...}`, the same names in every group."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    names = list(next(iter(groups.values()), ()))
    if not names:
        raise ValueError(f"groups: expected at least one group of at least one bar, got {groups}")
    for i, name in enumerate(names):
        places = np.arange(len(groups)) + (i - (len(names) - 1) / 2) * 0.8 / len(names)
        colour = COLORS[i % len(COLORS)]
        drawn = axes.bar(places, [group[name] for group in groups.values()], 0.8 / len(names), label=name, color=colour)
        axes.bar_label(drawn, fmt="%.2f")
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_ylabel(ylabel)
    axes.set_title(title, fontsize=11, parse_math=False)
    axes.legend(frameon=False)
    axes.margins(y=0.15)
    return figure


def confusion(matrix: Int[np.ndarray, "K K"], classes: Sequence[str], *, title: str = "") -> Figure:
    """How often each true class (row) was read as each class (column); up to 40 classes with the counts.

    Of more than 100 classes only every second, third ... is named, and the figure grows no larger than 20 inches.
    """
    side = min(max(0.45 * len(classes), 3.4), LONGEST_SIDE)
    figure = Figure(figsize=(side + 0.2, side), layout="constrained")
    axes = figure.subplots()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (y, x), count in np.ndenumerate(matrix) if len(classes) <= WRITTEN_UP_TO else ():
        colour = "white" if share[y, x] > 0.5 else "black"
        axes.text(x, y, f"{count}", ha="center", va="center", color=colour, fontsize=8 if len(classes) > 4 else 10)
    step = -(-len(classes) // NAMED)
    named, names = range(0, len(classes), step), classes[::step]
    turned = max(map(len, names)) > 3
    axes.set_xticks(named, names, rotation=90 if turned else 0, parse_math=False)
    axes.set_yticks(named, names, parse_math=False)
    axes.set_xlabel("read as")
    axes.set_ylabel("is")
    axes.set_title(title, fontsize=11, parse_math=False)
    return figure


def mistakes(
    images: Any, labels: Any, scores: Any, classes: Sequence[str], *, most: int = 40, title: str = ""
) -> Figure:
    """Images that were read wrong, each with its number, what it is and what it was read as, the surest first.

    Args:
      images: in [-1, 1], by number: an array (N, H, W) or (N, H, W, C), or a dict of at least those that are wrong.
      labels: (N,), the number of each image's class.
      scores: (N, K), such as log-probabilities: the larger that of the class read, the surer.
      classes: K names.
      most: how many to show at most.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    read_as = scores.argmax(-1)
    wrong = np.flatnonzero(read_as != labels)
    if not len(wrong):
        raise ValueError("scores: expected at least one mistake, got none")
    worst = wrong[np.argsort(-scores[wrong, read_as[wrong]], kind="stable")][:most]
    titles = [f"{i}: {classes[labels[i]]}\nread {classes[read_as[i]]}" for i in worst]
    title = title or f"The {len(worst)} surest of {len(wrong)} mistakes"
    return image_grid([images[i] for i in worst], titles, columns=8, title=title)


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure to a file, whole or not at all; raises an OSError when the folder cannot be written to."""
    with atomic_write(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font does not have
        figure.savefig(temporary, dpi=120)
