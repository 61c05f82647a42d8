"""Figures of numbers: curves, power laws, bars and confusion matrices."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Array, Int, Shaped

from ._figure_style import (
    COLORS,
    MAX_CLASS_NAMES,
    MAX_CLASSES_WITH_COUNTS,
    MAX_SIDE_INCHES,
    TITLE_SIZE,
    color,
    marker,
)
from ._optional import optional_import

with optional_import(needed_by="cnn_jax.figures", extra="figures"):
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Numbers = Sequence[float] | Shaped[Array | np.ndarray, "_"]
Line = tuple[Numbers, Numbers]  # x and y
MAX_POINTS_WITH_MARKERS = 30
BAR_GROUP_WIDTH = 0.8  # of the distance between groups


def curves(
    x: Numbers, lines: Mapping[str, Numbers], *, xlabel: str, ylabel: str, title: str = "", log: bool = False
) -> Figure:
    """Line plot: one line per name over the same x.

    Args:
      x: positions.
      lines: values y by name, as many as x.
      xlabel, ylabel, title: text.
      log: whether the y axis is logarithmic.

    Example:
      >>> figure = curves([1, 2, 3], {"loss": [0.9, 0.5, 0.4]}, xlabel="step", ylabel="loss", log=True)
      >>> figure.axes[0].get_yscale()
      'log'
    """
    figure = panels({xlabel: (x, lines)}, ylabel=ylabel, title=title)
    if log:
        figure.axes[0].set_yscale("log")
    return figure


def panels(
    curves_by_xlabel: Mapping[str, tuple[Numbers, Mapping[str, Numbers]]], *, ylabel: str, title: str = ""
) -> Figure:
    """Line plots side by side with one y axis.

    Args:
      curves_by_xlabel: (x, {name: y}) for each panel, by the label of its x axis.
      ylabel, title: text.

    Example:
      >>> figure = panels({"noise": ([0, 1], {"zncc": [99, 80]}), "gain": ([1, 2], {"zncc": [99, 99]})}, ylabel="%")
      >>> [axes.get_xlabel() for axes in figure.axes]
      ['noise', 'gain']
    """
    count = len(curves_by_xlabel)
    figure = Figure(figsize=(6.4 if count == 1 else 4 * count, 4), layout="constrained")
    grid = figure.subplots(1, count, squeeze=False, sharey=True)[0]
    for axes, (xlabel, (x, lines)) in zip(grid, curves_by_xlabel.items(), strict=True):
        for i, (name, y) in enumerate(lines.items()):
            point = marker(i) if len(x) <= MAX_POINTS_WITH_MARKERS else None
            axes.plot(x, y, label=name, color=color(i), marker=point)
        axes.set_xlabel(xlabel)
        axes.grid(alpha=0.3)
    grid[0].set_ylabel(ylabel)
    if count == 1:
        grid[0].set_title(title, fontsize=TITLE_SIZE, parse_math=False)
    else:
        figure.suptitle(title, fontsize=TITLE_SIZE, parse_math=False)
    if any(len(lines) > 1 for _, lines in curves_by_xlabel.values()):
        grid[-1].legend(frameon=False)
    return figure


def power_laws(
    points_by_xlabel: Mapping[str, Mapping[str, tuple[Numbers, Numbers, Line | None]]],
    *,
    ylabel: str,
    title: str = "",
) -> Figure:
    """Log-log plots side by side: points and fitted lines, and a dotted line with exponent 1.

    Args:
      points_by_xlabel: {name: (x, y, fit)} for each panel, by the label of its x axis; `fit` is a line (x, y) or None.
      ylabel, title: text.

    Example:
      >>> figure = power_laws({"pixels": {"fft": ([10, 100], [2, 19], ([10, 100], [2, 20]))}}, ylabel="ms")
      >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
      ['fft', 'proportional']
    """
    count = len(points_by_xlabel)
    figure = Figure(figsize=(4.4 * count + 0.4, 4), layout="constrained")
    grid = figure.subplots(1, count, squeeze=False, sharey=True)[0]
    for axes, (xlabel, points_by_name) in zip(grid, points_by_xlabel.items(), strict=True):
        _draw_power_laws(axes, points_by_name)
        axes.set(xscale="log", yscale="log", xlabel=xlabel)
        axes.tick_params(axis="x", which="minor", labelbottom=False)  # these labels would overlap
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    grid[0].set_ylabel(ylabel)
    figure.suptitle(title, fontsize=TITLE_SIZE, parse_math=False)
    return figure


def _draw_power_laws(axes: Axes, points_by_name: Mapping[str, tuple[Numbers, Numbers, Line | None]]) -> None:
    for i, (name, (x, y, fit)) in enumerate(points_by_name.items()):
        size = 8 - i % 5  # points drawn over each other stay visible
        axes.plot(
            x,
            y,
            label=name,
            color=color(i),
            marker=marker(i),
            markersize=size,
            markerfacecolor="none",
            linestyle="none",
        )
        if fit is not None:
            axes.plot(*fit, color=color(i))
    first_x, first_y, _ = next(iter(points_by_name.values()))
    proportional = np.asarray(first_x) * first_y[-1] / first_x[-1]
    axes.plot(first_x, proportional, label="proportional", color="gray", linestyle="dotted")


def bars(groups: Mapping[str, Mapping[str, float]], *, ylabel: str, title: str = "") -> Figure:
    """Bar chart: groups of bars, with the same names in every group.

    Args:
      groups: heights by name, by the name of the group.
      ylabel, title: text.

    Raises:
      ValueError: there are no groups, or no bars in the first one.

    Example:
      >>> figure = bars({"the X": {"X": 1.0, "O": 0.56}, "the O": {"X": 0.5, "O": 0.9}}, ylabel="logit")
      >>> [float(bar.get_height()) for bar in figure.axes[0].patches]
      [1.0, 0.5, 0.56, 0.9]
    """
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    names = list(next(iter(groups.values()), ()))
    if not names:
        raise ValueError(f"groups: expected at least one group of at least one bar, got {groups}")
    width = BAR_GROUP_WIDTH / len(names)
    for i, name in enumerate(names):
        positions = np.arange(len(groups)) + (i - (len(names) - 1) / 2) * width
        heights = [group[name] for group in groups.values()]
        container = axes.bar(positions, heights, width, label=name, color=color(i))
        axes.bar_label(container, fmt="%.2f")
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_ylabel(ylabel)
    axes.set_title(title, fontsize=TITLE_SIZE, parse_math=False)
    axes.legend(frameon=False)
    axes.margins(y=0.15)
    return figure


def class_scores(scores: Mapping[str, float], *, xlabel: str = "score", title: str = "") -> Figure:
    """Horizontal bar chart of one score per class, such as logits or probabilities; the largest is dark.

    Args:
      scores: score by class.
      xlabel: label of the scores.
      title: title of the figure; by default the class with the largest score.

    Raises:
      ValueError: there are no scores.

    Example:
      >>> class_scores({"X": 0.9, "O": 0.5}).axes[0].get_title()
      'X'
    """
    if not scores:
        raise ValueError("scores: expected at least one, got none")
    best = max(scores, key=scores.__getitem__)
    figure = Figure(figsize=(5, 0.34 * len(scores) + 1), layout="constrained")
    axes = figure.subplots()
    colors = [COLORS[0] if name == best else COLORS[5] for name in scores]
    container = axes.barh(range(len(scores)), list(scores.values()), color=colors)
    axes.bar_label(container, fmt="%.2f", padding=3, fontsize=9)
    axes.set_yticks(range(len(scores)), list(scores), parse_math=False)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.margins(x=0.15)
    axes.set_xlabel(xlabel)
    axes.set_title(title or best, fontsize=TITLE_SIZE, parse_math=False)
    return figure


def confusion(matrix: Int[np.ndarray, "K K"], classes: Sequence[str], *, title: str = "") -> Figure:
    """Confusion matrix: how often each true class (row) was predicted as each class (column).

    Colors show the fraction of the true class. Up to 40 classes the counts are written; of more than 100 classes, only
    every second, third ... is named. The figure is at most 20 inches wide.

    Args:
      matrix: counts.
      classes: K names.
      title: title of the figure.

    Example:
      >>> figure = confusion(np.array([[9, 1], [0, 5]]), ["cat", "dog"])
      >>> [text.get_text() for text in figure.axes[0].texts]
      ['9', '1', '0', '5']
    """
    side = min(max(0.45 * len(classes), 3.4), MAX_SIDE_INCHES)
    figure = Figure(figsize=(side + 0.2, side), layout="constrained")
    axes = figure.subplots()
    fractions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= MAX_CLASSES_WITH_COUNTS:
        _write_counts(axes, matrix, fractions)
    step = -(-len(classes) // MAX_CLASS_NAMES)
    positions = range(0, len(classes), step)
    names = classes[::step]
    vertical = max(map(len, names)) > 3
    axes.set_xticks(positions, names, rotation=90 if vertical else 0, parse_math=False)
    axes.set_yticks(positions, names, parse_math=False)
    axes.set_xlabel("read as")
    axes.set_ylabel("is")
    axes.set_title(title, fontsize=TITLE_SIZE, parse_math=False)
    return figure


def _write_counts(axes: Axes, matrix: np.ndarray, fractions: np.ndarray) -> None:
    size = 8 if len(matrix) > 4 else 10  # points
    for (y, x), count in np.ndenumerate(matrix):
        text_color = "white" if fractions[y, x] > 0.5 else "black"
        axes.text(x, y, f"{count}", ha="center", va="center", color=text_color, fontsize=size)
