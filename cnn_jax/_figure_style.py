"""Colors, markers and sizes that all figures share."""

# Okabe and Ito's colors, which color-blind readers can tell apart. Source: https://jfly.uni-koeln.de/color/
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^v*P"

# Overlays, in red, green and blue; color-blind readers can tell these apart too.
POSITIVE_COLOR = (0.90, 0.38, 0.0)
NEGATIVE_COLOR = (0.37, 0.24, 0.60)
NEUTRAL_COLOR = (0.5, 0.5, 0.5)
BACKGROUND_CONTRAST = 0.4  # contrast of an image under an overlay, as a fraction of the image's own

MAX_SIDE_WITH_NUMBERS = 12  # pixels; larger images do not show their values
MAX_CLASSES_WITH_COUNTS = 40  # larger confusion matrices do not show their counts
MAX_CLASS_NAMES = 100  # along one side of a confusion matrix
MAX_SIDE_INCHES = 20  # of a confusion matrix

TITLE_SIZE = 11  # points


def color(index: int) -> str:
    """The color of the line or bar of this index; colors repeat after seven."""
    return COLORS[index % len(COLORS)]


def marker(index: int) -> str:
    """The marker of the line of this index; markers repeat after seven."""
    return MARKERS[index % len(MARKERS)]
