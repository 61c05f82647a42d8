"""X's and O's drawn in JAX: pen strokes with the distortions of handwriting, print and cameras."""

import itertools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Shaped

from .._object_checks import check_key
from .._programs import compiled
from .._validation import check_int

__all__ = ["CLASSES", "CLEAN", "Strength", "draw"]

CLASSES = ("X", "O")

# Strengths of the article's clean glyph: `draw(key, **CLEAN)`.
CLEAN: dict[str, float] = dict.fromkeys(
    ("shift", "shrink", "stretch", "rotate", "slant", "deform", "thickness", "contrast", "noise"), 0.0
)

Strength = float | Shaped[ArrayLike, ""]

# Lengths are in halves of the image's side. The article's glyph extends from pixel 1 to pixel 7 of 9, one pixel wide.
GLYPH_HALF_SIDE = 2 / 3
PEN_RADIUS = 1 / 9
# The width of the antialiased edge in pixels, narrow enough that 9x9 pixels give the article's +1 and -1 exactly.
EDGE_PIXELS = 0.4


def draw(
    key: Array,
    *,
    size: int = 28,
    label: int | Shaped[ArrayLike, ""] | None = None,
    shift: Strength = 1.0,
    shrink: Strength = 1.0,
    stretch: Strength = 1.0,
    rotate: Strength = 1.0,
    slant: Strength = 1.0,
    deform: Strength = 1.0,
    thickness: Strength = 1.0,
    contrast: Strength = 1.0,
    noise: Strength = 1.0,
) -> tuple[Float[Array, "size size"], Int[Array, ""]]:
    """Draws one random X (label 0) or O (label 1), white on black.

    A letter is a set of line segments. A pixel's ink is its depth inside the stroke (the pen's radius minus the
    distance to the nearest segment), through an antialiased edge:

        ink[y, x] = clip(1/2 + max over segments (radius - distance) / edge, 0, 1)

    With all strengths at 0, the letter is the article's clean glyph. Each strength scales one distortion, which has its
    own random numbers: a growing strength with the same key distorts the same letter more and more.

    Args:
      key: a `jax.random.key`; one key makes one drawing, `jax.vmap` over keys gives a batch.
      size: rows and columns.
      label: 0 or 1; random by default.
      shift: position, anywhere the letter still fits.
      shrink: size, down to exp(-0.6) = 0.55.
      stretch: aspect ratio, up to 2.7:1 either way.
      rotate: angle, up to 45 degrees either way.
      slant: shear, up to 0.5 columns per row either way.
      deform: form of the strokes: curves, uneven arms, hooks, serifs; an X with joined strokes or of two arcs back to
        back; an O that is open, lumpy, boxy, overlapping or has a tail.
      thickness: width of the pen, 0.4 to 3.3 times; some pens are broad, with thick and thin directions.
      contrast: gray levels, down to 0.4 of the full range, anywhere in it.
      noise: blur, blotches of up to 0.15 and grain with a standard deviation of up to 0.15.

    Returns:
      The image, (size, size) in [-1, 1], and the label, int32; `CLASSES[label]` is the letter.

    Raises:
      ValueError: the size is below 1, or the label is an int other than 0 and 1.
      TypeError: the key is not a random key, or the size is not an int.

    Notes:
      Gradients are not useful: distances have kinks, and the label selects a branch.

    >>> clean = jax.jit(lambda key: draw(key, size=9, label=0, **CLEAN))
    >>> image, label = clean(jax.random.key(0))
    >>> image[:4].round(3)
    Array([[-1., -1., -1., -1., -1., -1., -1., -1., -1.],
           [-1.,  1., -1., -1., -1., -1., -1.,  1., -1.],
           [-1., -1.,  1., -1., -1., -1.,  1., -1., -1.],
           [-1., -1., -1.,  1., -1.,  1., -1., -1., -1.]], dtype=float32)
    """
    check_key(key)
    size = check_int("size", size)
    if isinstance(label, int) and label not in (0, 1):
        raise ValueError(f"label: expected 0 or 1, got {label}")
    strengths = shift, shrink, stretch, rotate, slant, deform, thickness, contrast, noise
    return _draw(key, label, strengths, size)


@compiled("size")
def _draw(
    key: Array, label: int | Shaped[ArrayLike, ""] | None, strengths: tuple[Strength, ...], size: int
) -> tuple[Float[Array, "size size"], Int[Array, ""]]:
    """The drawing, from checked arguments; strengths in the order of `draw`."""
    shift, shrink, stretch, rotate, slant, deform, thickness, contrast, noise = (
        jnp.asarray(strength, jnp.float32) for strength in strengths
    )
    label_key, x_key, o_key, letter_key, grain_key = jax.random.split(key, 5)
    if label is None:
        label = jax.random.randint(label_key, (), 0, 2)
    label = jnp.asarray(label, jnp.int32)
    form, pen, position, tone, blotches = _uniform_arrays(letter_key, (3,), (4,), (3,), (5,), (4, 4))

    segments = jnp.where(label == 0, _x_segments(x_key, deform), _o_segments(o_key, deform))
    segments = segments @ _linear_map(form, stretch, rotate, slant)
    # A narrow letter gets a thinner pen, so that an O stays open.
    radius = _pen_radius(pen, segments, thickness) * jnp.exp(-0.5 * stretch * jnp.abs(form[0]))
    segments, radius = _fit_into_image(position, segments, radius, size, shift, shrink)

    blur, blotch, grain = noise * jnp.array([2.0, 0.15, 0.15]) * _rescale(tone[2:], 0.0, 1.0)
    ink = _ink(segments, radius, EDGE_PIXELS + blur, size)
    image = _reduce_contrast(ink, tone, contrast)
    image += blotch * jax.image.resize(blotches, (size, size), "linear")
    image += grain * jax.random.normal(grain_key, (size, size))
    return jnp.clip(image, -1, 1), label


def _uniform_arrays(key: Array, *shapes: tuple[int, ...]) -> list[Float[Array, "..."]]:
    """Arrays of uniform random numbers in [-1, 1). They are drawn at once: one draw per array compiles more slowly."""
    sizes = [math.prod(shape) for shape in shapes]
    numbers = jax.random.uniform(key, (sum(sizes),), minval=-1)
    parts = jnp.split(numbers, list(itertools.accumulate(sizes))[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _rescale(uniform: Float[Array, "*n"], low: float, high: float) -> Float[Array, "*n"]:
    """Numbers in [-1, 1) mapped linearly to [low, high)."""
    return low + (high - low) * (uniform + 1) / 2


def _happens(uniform: Float[Array, ""], probability: float | Array, deform: Strength) -> Bool[Array, ""]:
    """A random event, less likely if the letter is deformed less; `uniform` is in [-1, 1)."""
    return _rescale(uniform, 0.0, 1.0) < probability * jnp.minimum(deform, 1)


def _line_segments(points: Float[Array, "n 2"]) -> Float[Array, "n-1 2 2"]:
    """The segments between consecutive points, as (segment, start or end, (y, x))."""
    return jnp.stack([points[:-1], points[1:]], axis=1)


def _x_segments(key: Array, deform: Array) -> Float[Array, "32 2 2"]:
    """The line segments of an X: two strokes, a link between them, and a hook or serif at each end.

    With some probability the strokes are two arcs back to back, ")(", or the link joins the ends of two arms.
    """
    arms, corner_shifts, crossing, bends, sways, choices, link_bend, hooks, serif = _uniform_arrays(
        key, (4, 1), (4, 2), (1, 2), (2, 2), (2,), (3,), (2,), (4, 4), (2,)
    )
    is_linked = _happens(choices[0], 0.1, deform)
    deform = jnp.where(is_linked, 0.5, 1.0) * deform  # otherwise the loop closed by the link could be taken for an O
    corners = GLYPH_HALF_SIDE * jnp.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    corners = corners * (1 + deform * _rescale(arms, -0.3, 0.15)) + 0.18 * deform * corner_shifts
    middles = deform * (0.16 * crossing + 0.1 * bends)
    are_arcs = _happens(choices[1], 0.2, deform)
    ends = jnp.where(are_arcs, corners[2:], corners[:1:-1])
    first = _stroke(corners[0], middles[0], ends[0], 0.15 * deform * sways[0])
    second = _stroke(corners[1], middles[1], ends[1], 0.15 * deform * sways[1])

    link_start = first[-1]
    link_end = jnp.where(choices[2] > 0, second[0], second[-1])
    link = _link(link_start, link_end, link_bend, is_linked, deform)
    tips = _tips(first, second, hooks, serif, are_arcs, deform)
    return jnp.concatenate([_line_segments(first), _line_segments(second), _line_segments(link), *tips])


def _link(start: Array, end: Array, bend: Array, is_linked: Array, deform: Array) -> Float[Array, "5 2"]:
    """Points of a stroke that joins the ends of two arms; all at the start if they are not linked."""
    link = _stroke(start, (start + end) / 2 + 0.3 * deform * bend, end, 0.0, points=5)
    return jnp.where(is_linked, link, start[None])


def _tips(
    first: Array, second: Array, hooks: Array, serif: Array, are_arcs: Array, deform: Array
) -> list[Float[Array, "2 2 2"]]:
    """Segments that extend the four ends of an X: a hook or a horizontal serif."""
    serif_length = jnp.where(_happens(serif[0], 0.15, deform), deform * _rescale(serif[1], 0.1, 0.25), 0)
    serif_ends = serif_length * jnp.array([[0.0, -1.0], [0.0, 1.0]])
    strokes = jnp.stack([first, first[::-1], second, second[::-1]])
    hook_probability = jnp.where(are_arcs, 0.7, 0.25)
    return [
        _line_segments(_tail(hook, stroke[1], stroke[0], deform, hook_probability, 0.6, 2)).at[0].add(serif_ends)
        for hook, stroke in zip(hooks, strokes, strict=True)
    ]


def _stroke(start: Array, middle: Array, end: Array, sway: float | Array, points: int = 11) -> Float[Array, "n 2"]:
    """Points of a parabola through start, middle and end, plus a sine wave across it (an S-shape)."""
    t = jnp.linspace(0, 1, points)[:, None]
    start = start[None]
    middle = middle[None]
    end = end[None]
    curve = start * (2 * t * t - 3 * t + 1) + middle * 4 * t * (1 - t) + end * (2 * t * t - t)
    across = (end - start)[:, ::-1] * jnp.array([[1.0, -1.0]])
    return curve + sway * jnp.sin(2 * jnp.pi * t) * across


def _o_segments(key: Array, deform: Array) -> Float[Array, "32 2 2"]:
    """The line segments of an O: a loop of 24, a lead-in of 4 and a tail of 4."""
    start, direction, sweep, phases, waves, spiral, boxiness, wobble, lead_in, tail = _uniform_arrays(
        key, (), (), (), (4, 1), (4, 1), (), (), (25, 2), (4,), (4,)
    )
    sweep = 2 * jnp.pi + deform * _rescale(sweep, -0.8, 1.4)
    progress = jnp.linspace(0, 1, 25)
    angle = jnp.pi * start + jnp.sign(direction) * sweep * progress

    order = jnp.arange(2.0, 6.0)[:, None]
    lumps = 0.2 * waves / order * jnp.cos(order * angle[None, :] + jnp.pi * phases)
    radius = 1 + deform * (jnp.sum(lumps, axis=0) + 0.3 * spiral * (progress - 0.5))
    outline = jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1)
    outline = jnp.sign(outline) * jnp.abs(outline) ** (1 - deform * _rescale(boxiness, -0.15, 0.45))
    loop = GLYPH_HALF_SIDE * radius[:, None] * outline + 0.025 * deform * wobble

    lead_in = _tail(lead_in, loop[1], loop[0], deform, 0.3, 0.7)
    tail = _tail(tail, loop[-2], loop[-1], deform, 0.5, 1.3)
    return jnp.concatenate([_line_segments(loop), _line_segments(lead_in), _line_segments(tail)])


def _tail(
    numbers: Float[Array, "4"],
    before: Array,
    end: Array,
    deform: Array,
    probability: float | Array,
    max_length: float,
    count: int = 4,
) -> Float[Array, "n 2"]:
    """Points that extend a stroke past its end, straight on or turning; most tails are short."""
    has_tail = _happens(numbers[0], probability, deform)
    length = jnp.where(has_tail, max_length * deform * _rescale(numbers[1], 0.2, 1.0) ** 2, 0)
    direction = end - before
    angle = jnp.arctan2(direction[0], direction[1]) + 2.6 * numbers[2] + 0.9 * numbers[3] * jnp.arange(0.0, count)
    steps = length / count * jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1)
    return jnp.concatenate([end[None], end[None] + jnp.cumsum(steps, axis=0)])


def _linear_map(numbers: Float[Array, "3"], stretch: Array, rotate: Array, slant: Array) -> Float[Array, "2 2"]:
    """The matrix that stretches, slants and rotates points (y, x) when multiplied from the right."""
    tall = jnp.exp(0.5 * stretch * numbers[0])
    shear = -0.5 * slant * numbers[1]
    angle = jnp.pi / 4 * rotate * numbers[2]
    cos = jnp.cos(angle)
    sin = jnp.sin(angle)
    stretch_and_slant = jnp.stack([jnp.stack([tall, shear]), jnp.stack([jnp.zeros_like(tall), 1 / tall])])
    return stretch_and_slant @ jnp.stack([jnp.stack([cos, sin]), jnp.stack([-sin, cos])])


def _pen_radius(numbers: Float[Array, "4"], segments: Array, thickness: Array) -> Float[Array, " n"]:
    """The pen's radius for each segment. Three of ten pens are broad: thin along a random angle."""
    width, broad, pen_angle, flatness = numbers
    direction = segments[:, 1] - segments[:, 0]
    alignment = jnp.cos(jnp.arctan2(direction[:, 0], direction[:, 1]) - jnp.pi * pen_angle) ** 2
    is_broad = _happens(broad, 0.3, deform=1)
    thinning = jnp.where(is_broad, 0.7 * jnp.minimum(thickness, 1) * _rescale(flatness, 0.0, 1.0), 0)
    return PEN_RADIUS * jnp.exp(thickness * _rescale(width, -1.0, 1.2)) * (1 - thinning * alignment)


def _fit_into_image(
    numbers: Float[Array, "3"], segments: Array, radius: Array, size: int, shift: Array, shrink: Array
) -> tuple[Float[Array, "n 2 2"], Float[Array, " n"]]:
    """Scales the letter so that it fits into the image, shrinks it, and shifts it without crossing the border."""
    low = jnp.min(segments - radius[:, None, None], axis=(0, 1))
    high = jnp.max(segments + radius[:, None, None], axis=(0, 1))
    extent = (high - low) / 2
    scale = jnp.minimum(1, 0.95 / jnp.max(extent)) * jnp.exp(-0.6 * shrink * _rescale(numbers[0], 0.0, 1.0))
    center = shift * jnp.maximum(1 - scale * extent, 0) * numbers[1:]
    segments = (segments - (low + high)[None, None] / 2) * scale + center[None, None]
    return segments, jnp.maximum(radius * scale, 0.8 / size)


def _ink(segments: Array, radius: Array, edge_pixels: Array, size: int) -> Float[Array, "size size"]:
    """The ink of each pixel, 0 to 1: its depth inside the stroke, through an antialiased edge."""
    centers = (jnp.arange(size, dtype=segments.dtype) + 0.5) / size * 2 - 1

    def depth(segment: Array, radius: Array) -> Array:
        (y0, x0), (y1, x1) = segment
        dy = y1 - y0
        dx = x1 - x0
        y = centers[:, None] - y0
        x = centers[None, :] - x0
        t = jnp.clip((y * dy + x * dx) / jnp.maximum(dy * dy + dx * dx, 1e-9), 0, 1)
        return radius - jnp.hypot(y - t * dy, x - t * dx)

    max_depth = jnp.max(jax.vmap(depth)(segments, radius), axis=0)
    return jnp.clip(0.5 + max_depth * (size / 2) / edge_pixels, 0, 1)


def _reduce_contrast(ink: Array, tone: Float[Array, "5"], contrast: Array) -> Float[Array, "size size"]:
    """Pixels in [-1, 1] from ink, with a random range of gray levels."""
    half_range = jnp.maximum(1 - 0.6 * contrast * _rescale(tone[0], 0.0, 1.0), 0)
    return half_range * (2 * ink - 1) + (1 - half_range) * tone[1]
