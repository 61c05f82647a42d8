"""Figures of images, networks and results; every function returns a matplotlib Figure.

Images are shown as in the article: white is 1 and black is -1.
"""

import os
import warnings

from ._chart_figures import bars, class_scores, confusion, curves, panels, power_laws
from ._figure_style import BACKGROUND_CONTRAST, COLORS, MARKERS, NEGATIVE_COLOR, POSITIVE_COLOR
from ._image_figures import image_grid, mistakes, overlay, overlay_colormap, stages
from ._optional import optional_import
from .files import atomic_write

with optional_import(needed_by="cnn_jax.figures", extra="figures"):
    from matplotlib.figure import Figure

__all__ = [
    "BACKGROUND_CONTRAST",
    "COLORS",
    "MARKERS",
    "NEGATIVE_COLOR",
    "POSITIVE_COLOR",
    "bars",
    "class_scores",
    "confusion",
    "curves",
    "image_grid",
    "mistakes",
    "overlay",
    "overlay_colormap",
    "panels",
    "power_laws",
    "save",
    "stages",
]


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure to an image file, atomically; the extension determines the format.

    Args:
      figure: the figure.
      path: the file; missing folders are created.

    Raises:
      OSError: the file cannot be written.
      ValueError: matplotlib does not know the format.

    Example:
      >>> import tempfile, pathlib
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "figure.svg")
      ...     save(class_scores({"X": 0.9, "O": 0.5}), path)
      ...     path.read_text()[:5]
      '<?xml'
    """
    with atomic_write(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font lacks
        figure.savefig(temporary, dpi=120)
