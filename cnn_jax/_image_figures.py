"""Figures of images: grids of images, stages of a network, overlays and misclassified images."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Array, ArrayLike, Int, Shaped

from ._figure_style import (
    BACKGROUND_CONTRAST,
    MAX_SIDE_WITH_NUMBERS,
    NEGATIVE_COLOR,
    NEUTRAL_COLOR,
    POSITIVE_COLOR,
    TITLE_SIZE,
)
from ._optional import optional_import

with optional_import(needed_by="cnn_jax.figures", extra="figures"):
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.figure import Figure

ImageLike = Shaped[ArrayLike, "_ _ *_"]
SMALLEST_LIMIT = 1e-6  # of a scale, so that images of zeros have one


def image_grid(
    images: Sequence[ImageLike] | Shaped[Array | np.ndarray, "N _ _ *_"],
    titles: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    title: str = "",
    numbers: bool = False,
    limit: float = 1.0,
) -> Figure:
    """Images side by side on one scale: -limit is black, limit is white.

    Args:
      images: each (H, W), (H, W, 1), or (H, W, 3) of red, green and blue.
      titles: one per image.
      columns: images per row; by default all in one row.
      title: title of the figure.
      numbers: whether to write the values into images of at most 12x12 pixels.
      limit: value that is white.

    Raises:
      ValueError: there are no images, or not one title per image.

    Example:
      >>> image_grid([np.eye(3), -np.eye(3)], ["a feature", "its negative"]).axes[0].get_title()
      'a feature'
    """
    if len(images) == 0:
        raise ValueError("images: expected at least one, got none")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"titles: expected {len(images)} (one per image), got {len(titles)}")
    columns = min(columns or len(images), len(images))
    rows = -(-len(images) // columns)
    side = 2.6 if numbers else 1.3  # inches
    figure = Figure(figsize=(side * columns + 0.2, (side + 0.25) * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for i, (axes, image) in enumerate(zip(grid.flat, images, strict=False)):
        pixels = _without_channel(np.asarray(image, np.float32))
        _draw_image(axes, pixels, limit)
        if numbers and max(pixels.shape) <= MAX_SIDE_WITH_NUMBERS and pixels.ndim == 2:
            _write_numbers(axes, pixels, limit)
        axes.set_title(titles[i] if titles is not None else "", fontsize=9, parse_math=False)
    figure.suptitle(title, fontsize=TITLE_SIZE, parse_math=False)
    return figure


def _without_channel(image: np.ndarray) -> np.ndarray:
    return image[..., 0] if image.shape[2:] == (1,) else image


def _draw_image(axes: Axes, image: np.ndarray, limit: float) -> None:
    axes.axis("on")
    axes.set_xticks([])
    axes.set_yticks([])
    if image.ndim == 3:
        axes.imshow(np.clip((image / limit + 1) / 2, 0, 1), interpolation="nearest")
    else:
        axes.imshow(image, cmap="gray", vmin=-limit, vmax=limit, interpolation="nearest")


def _write_numbers(axes: Axes, image: np.ndarray, limit: float) -> None:
    number_format = ".0f" if np.all(image == np.round(image)) else ".2f"
    size = 90 / max(image.shape[1] + 4, 8)  # points
    for (y, x), value in np.ndenumerate(image):
        color = "black" if value > 0.25 * limit else "white"
        axes.text(x, y, format(value, number_format), ha="center", va="center", fontsize=size, color=color)


def stages(activations: Mapping[str, Shaped[ArrayLike, "..."]], *, title: str = "", columns: int = 8) -> Figure:
    """Activations of a network: a row for each stage (H, W, K), with its first features side by side.

    Each row has its own scale, written beside it: the largest magnitude is white, or black if negative.

    Args:
      activations: arrays by name, such as `cnn_jax.explain.stages` returns; those of another rank are left out.
      title: title of the figure.
      columns: features shown per stage.

    Raises:
      ValueError: no array is (H, W, K).

    Example:
      >>> figure = stages({"conv1": np.ones((4, 4, 3)), "dense1": np.ones(2)}, columns=3)
      >>> [len(axes.images) for axes in figure.axes]
      [1, 1, 1]
    """
    images = {name: np.asarray(activation) for name, activation in activations.items() if np.ndim(activation) == 3}
    if not images:
        raise ValueError("activations: expected at least one stage of shape (H, W, K), got none")
    figure = Figure(figsize=(1.1 * columns + 1.2, 1.15 * len(images) + 0.5), layout="constrained")
    grid = figure.subplots(len(images), columns, squeeze=False)
    for row, (name, image) in zip(grid, images.items(), strict=True):
        limit = _largest_magnitude(image)
        for k, axes in enumerate(row):
            axes.axis("off")
            if k < image.shape[2]:
                _draw_image(axes, image[..., k], limit)
        shape = "x".join(map(str, image.shape))
        row[0].set_ylabel(f"{name}\n{shape}\n±{limit:.2g}", fontsize=8, parse_math=False)
    figure.suptitle(title, fontsize=TITLE_SIZE, parse_math=False)
    return figure


def _largest_magnitude(values: np.ndarray) -> float:
    return max(float(np.abs(values).max()), SMALLEST_LIMIT)


def overlay(
    image: ImageLike,
    maps: Mapping[str, ImageLike],
    *,
    window: tuple[int, int] = (1, 1),
    limit: float | None = None,
    title: str = "",
) -> Figure:
    """Maps over their image: orange where positive, purple where negative, opacity proportional to magnitude.

    Each map has its own scale, which starts at 0 if no value is negative.

    Args:
      image: (H, W), (H, W, 1) or (H, W, 3), shown with reduced contrast.
      maps: (H', W') or (H', W', 1) each, by name, stretched over the image. NaN is shown as 0.
      window: rows and columns of the image that each value depends on. For a map without padding,
        (H - h + 1, W - w + 1), pass (h, w) to draw each value in the center of its patch.
      limit: magnitude shown in full color; by default the largest of each map.
      title: title of the figure.

    Raises:
      ValueError: there are no maps, or one has another rank.

    Example:
      >>> figure = overlay(np.zeros((9, 9)), {"match": np.eye(7)}, window=(3, 3))
      >>> [axes.get_title() for axes in figure.axes[:2]]
      ['image', 'match']
    """
    if not maps:
        raise ValueError("maps: expected at least one, got none")
    pixels = _without_channel(np.asarray(image, np.float32))
    columns = min(len(maps) + 1, 3)
    rows = -(-(len(maps) + 1) // columns)
    figure = Figure(figsize=(3 * columns, 2.8 * rows + 0.3), layout="constrained")
    image_axes, *grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes in grid[len(maps) :]:
        axes.axis("off")
    _draw_image(image_axes, pixels, 1.0)
    image_axes.set_title("image", fontsize=10)
    extent = _extent(pixels.shape, window)
    for axes, (name, values) in zip(grid, maps.items(), strict=False):
        layer = _without_channel(np.nan_to_num(np.asarray(values, np.float32)))
        if layer.ndim != 2:
            raise ValueError(f"maps: expected shape (H', W') each, got {layer.shape} for {name!r}")
        scale = _draw_overlay(axes, pixels, layer, extent, limit)
        figure.colorbar(scale, ax=axes, shrink=0.8)
        axes.set_title(name, fontsize=10, parse_math=False)
    figure.suptitle(title, fontsize=TITLE_SIZE, parse_math=False)
    return figure


def _extent(shape: tuple[int, ...], window: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, right, bottom and top edge, in pixels, of a map whose values are in the centers of their windows."""
    row_margin = (window[0] - 1) / 2
    column_margin = (window[1] - 1) / 2
    return column_margin - 0.5, shape[1] - column_margin - 0.5, shape[0] - row_margin - 0.5, row_margin - 0.5


def _draw_overlay(
    axes: Axes,
    image: np.ndarray,
    layer: np.ndarray,
    extent: tuple[float, float, float, float],
    limit: float | None,
) -> ScalarMappable:
    """Draws a map over its image; returns the map's color scale."""
    highest = limit or _largest_magnitude(layer)
    lowest = 0 if layer.min() >= 0 else -highest
    _draw_image(axes, BACKGROUND_CONTRAST * image, 1.0)
    colors = np.where(layer[..., None] > 0, POSITIVE_COLOR, NEGATIVE_COLOR)
    opacity = np.clip(np.abs(layer) / highest, 0, 1)
    axes.imshow(np.dstack([colors, opacity]), extent=extent, interpolation="nearest")
    axes.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
    return ScalarMappable(Normalize(lowest, highest), overlay_colormap(lowest))


def overlay_colormap(lowest: float) -> LinearSegmentedColormap:
    """The colors of `overlay` on a gray background, from the lowest value to the highest.

    Args:
      lowest: the lowest value. If it is negative, colors go from purple through gray to orange, else from gray to
        orange.

    Example:
      >>> np.round(overlay_colormap(-1.0)(1.0), 2).tolist()  # red, green, blue and opacity
      [0.9, 0.38, 0.0, 1.0]
    """
    colors = [NEUTRAL_COLOR, POSITIVE_COLOR]
    return LinearSegmentedColormap.from_list("overlay", [NEGATIVE_COLOR, *colors] if lowest < 0 else colors)


def mistakes(
    images: Mapping[int, ImageLike] | Shaped[Array | np.ndarray, "N _ _ *_"],
    labels: Int[ArrayLike, " N"] | Sequence[int],
    logits: Shaped[ArrayLike, "N K"] | Sequence[Sequence[float]],
    classes: Sequence[str],
    *,
    max_images: int = 40,
    title: str = "",
) -> Figure:
    """Misclassified images, each with its index, its class and the predicted class, the most confident first.

    Args:
      images: pixels in [-1, 1] by index: an array (N, H, W) or (N, H, W, C), or a dict with at least the misclassified
        images.
      labels: class indices, (N,).
      logits: logits or log-probabilities, (N, K). The image with the largest logit of a wrong class comes first.
      classes: K names.
      max_images: the most images to show.
      title: title of the figure; by default it says how many mistakes there are.

    Raises:
      ValueError: no image is misclassified.

    Example:
      >>> figure = mistakes(np.zeros((2, 8, 8)), [0, 1], [[0.2, 0.8], [0.1, 0.9]], ["cat", "dog"])
      >>> figure.axes[0].get_title()
      '0: cat\\nread dog'
    """
    labels = np.asarray(labels)
    logits = np.asarray(logits)
    predictions = logits.argmax(-1)
    wrong = np.flatnonzero(predictions != labels)
    if not len(wrong):
        raise ValueError("logits: expected at least one mistake, got none")
    confidence = logits[wrong, predictions[wrong]]
    shown_indices = wrong[np.argsort(-confidence, kind="stable")][:max_images].tolist()
    titles = [f"{i}: {classes[int(labels[i])]}\nread {classes[int(predictions[i])]}" for i in shown_indices]
    title = title or f"The {len(shown_indices)} surest of {len(wrong)} mistakes"
    return image_grid([images[i] for i in shown_indices], titles, columns=8, title=title)
