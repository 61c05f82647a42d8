"""X's and O's, drawn by the program: strokes of a pen, distorted the ways people and printers distort them."""

import itertools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._validation import check_int

CLASSES = ("X", "O")

Strength = float | Float[Array, ""]

# Lengths are halves of the image's side. The article's glyph reaches from pixel 1 to pixel 7 of 9, one pixel wide.
REACH = 2 / 3
RADIUS = 1 / 9
# The width of the antialiased edge, in pixels: narrow enough that 9x9 gives the article's ±1 exactly.
EDGE = 0.4


def draw(
    key: Array,
    *,
    size: int = 28,
    label: int | Int[Array, ""] | None = None,
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
    """Draws one X (label 0) or O (label 1), white on black, in pure JAX: `jax.vmap` over keys gives a batch.

    A letter is a set of line segments; a pixel's ink is its distance to the nearest one, less the pen's radius, through
    an antialiased edge. All strengths 0 give the article's clean glyph; each strength scales its own distortion alone,
    from its own random draw, so that the same key at growing strength is the same letter ever more distorted.
    Not meant to be differentiated.

    Args:
      key: one `jax.random.key`, one drawing.
      size: rows and columns.
      label: which letter, 0 or 1; by default drawn too.
      shift: moved anywhere the letter still fits.
      shrink: down to exp(-0.6) = 0.55 of its size.
      stretch: wider or taller, up to 2.7:1.
      rotate: turned by up to 45 degrees either way.
      slant: leaning by up to 0.5 columns per row.
      deform: curved strokes, uneven arms, hooks, serifs, an X whose strokes are joined or are two arcs back to back;
        an O that is open, lumpy, boxy, overlapping or has a tail.
      thickness: a pen from 0.4 to 3.3 times as thick, some with thick and thin directions.
      contrast: grey levels down to 0.4 of the full range, anywhere in it.
      noise: blur, blotches of up to 0.15 and grain of a standard deviation up to 0.15.

    Returns:
      The image, (size, size) in [-1, 1], and the label, int32; `CLASSES[label]` is the letter.

    Raises:
      ValueError, TypeError: a size that is no positive int, a label that is neither 0 nor 1.

    >>> clean = jax.jit(lambda key: draw(key, size=9, label=0, **CLEAN))
    >>> image, label = clean(jax.random.key(0))
    >>> image[:4].round(3)
    Array([[-1., -1., -1., -1., -1., -1., -1., -1., -1.],
           [-1.,  1., -1., -1., -1., -1., -1.,  1., -1.],
           [-1., -1.,  1., -1., -1., -1.,  1., -1., -1.],
           [-1., -1., -1.,  1., -1.,  1., -1., -1., -1.]], dtype=float32)
    """
    check_int("size", size)
    if isinstance(label, int) and label not in (0, 1):
        raise ValueError(f"label: expected 0 or 1, got {label}")
    shift, shrink, stretch, rotate, slant, deform, thickness, contrast, noise = (
        jnp.asarray(strength, jnp.float32)
        for strength in (shift, shrink, stretch, rotate, slant, deform, thickness, contrast, noise)
    )
    label_key, x_key, o_key, letter_key, grain_key = jax.random.split(key, 5)
    if label is None:
        label = jax.random.randint(label_key, (), 0, 2)
    label = jnp.asarray(label, jnp.int32)
    form, pen, place, tone, blotches = _deal(letter_key, (3,), (4,), (3,), (5,), (4, 4))

    letter = jnp.where(label == 0, _x(x_key, deform), _o(o_key, deform))
    letter = letter @ _form(form, stretch, rotate, slant)
    radius = _pen(pen, letter, thickness) * jnp.exp(-0.5 * stretch * jnp.abs(form[0]))  # a narrow O stays open
    letter, radius = _place(place, letter, radius, size, shift, shrink)

    blur, blotch, grain = noise * jnp.array([2.0, 0.15, 0.15]) * _between(tone[2:], 0, 1)
    ink = _ink(letter, radius, EDGE + blur, size)
    levels = jnp.maximum(1 - 0.6 * contrast * _between(tone[0], 0, 1), 0)
    image = levels * (2 * ink - 1) + (1 - levels) * tone[1]
    image += blotch * jax.image.resize(blotches, (size, size), "linear")
    image += grain * jax.random.normal(grain_key, (size, size))
    return jnp.clip(image, -1, 1), label


CLEAN: dict[str, float] = dict.fromkeys(
    ("shift", "shrink", "stretch", "rotate", "slant", "deform", "thickness", "contrast", "noise"), 0.0
)


def _deal(key: Array, *shapes: tuple[int, ...]) -> list[Array]:
    """Uniform numbers in [-1, 1) in arrays of these shapes, from one draw: many small ones would compile for long."""
    sizes = [math.prod(shape) for shape in shapes]
    numbers = jnp.split(jax.random.uniform(key, (sum(sizes),), minval=-1), list(itertools.accumulate(sizes))[:-1])
    return [part.reshape(shape) for part, shape in zip(numbers, shapes, strict=True)]


def _between(number: Array, low: float, high: float) -> Array:
    return low + (high - low) * (number + 1) / 2


def _chance(number: Array, probability: float | Array, deform: Strength) -> Array:
    return _between(number, 0, 1) < probability * jnp.minimum(deform, 1)


def _segments(points: Array) -> Array:
    return jnp.stack([points[:-1], points[1:]], axis=1)


def _x(key: Array, deform: Strength) -> Array:
    """Two strokes, what joins them, and a hook or serif at each end: 32 segments as (segment, start or end, (y, x))."""
    arms, places, crossing, bends, sways, choices, bulge, hooks, feet = _deal(
        key, (4, 1), (4, 2), (1, 2), (2, 2), (2,), (3,), (2,), (4, 4), (2,)
    )
    joined = _chance(choices[0], 0.1, deform)
    deform = jnp.where(joined, 0.5, 1.0) * deform  # or else the loop that the link closes could be an O's
    corners = REACH * jnp.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    corners = corners * (1 + deform * _between(arms, -0.3, 0.15)) + 0.18 * deform * places
    middles = deform * (0.16 * crossing + 0.1 * bends)
    arcs = _chance(choices[1], 0.2, deform)  # )( in place of two strokes that cross
    ends = jnp.where(arcs, corners[2:], corners[:1:-1])
    first = _stroke(corners[0], middles[0], ends[0], 0.15 * deform * sways[0])
    second = _stroke(corners[1], middles[1], ends[1], 0.15 * deform * sways[1])

    last, goal = first[-1], jnp.where(choices[2] > 0, second[0], second[-1])
    link = _stroke(last, (last + goal) / 2 + 0.3 * deform * bulge, goal, 0.0, points=5)
    link = jnp.where(joined, link, last[None])

    serif = jnp.where(_chance(feet[0], 0.15, deform), deform * _between(feet[1], 0.1, 0.25), 0)
    serif = serif * jnp.array([[0.0, -1.0], [0.0, 1.0]])
    strokes = jnp.stack([first, first[::-1], second, second[::-1]])
    curled = jnp.where(arcs, 0.7, 0.25)
    tips = [
        _segments(_tail(hook, stroke[1], stroke[0], deform, curled, 0.6, 2)).at[0].add(serif)
        for hook, stroke in zip(hooks, strokes, strict=True)
    ]
    return jnp.concatenate([_segments(first), _segments(second), _segments(link), *tips])


def _stroke(start: Array, middle: Array, end: Array, sway: float | Array, points: int = 11) -> Array:
    """A curve through three points that also sways from side to side, S-shaped."""
    t = jnp.linspace(0, 1, points)[:, None]
    start, middle, end = start[None], middle[None], end[None]
    curve = start * (2 * t * t - 3 * t + 1) + middle * 4 * t * (1 - t) + end * (2 * t * t - t)
    across = (end - start)[:, ::-1] * jnp.array([[1.0, -1.0]])
    return curve + sway * jnp.sin(2 * jnp.pi * t) * across


def _o(key: Array, deform: Strength) -> Array:
    """A loop of 24 segments, a lead-in and a tail of four each, as (segment, start or end, (y, x))."""
    start, turn, sweep, phases, waves, spiral, box, wobble, lead, tail = _deal(
        key, (), (), (), (4, 1), (4, 1), (), (), (25, 2), (4,), (4,)
    )
    sweep = 2 * jnp.pi + deform * _between(sweep, -0.8, 1.4)
    along = jnp.linspace(0, 1, 25)
    angle = jnp.pi * start + jnp.sign(turn) * sweep * along

    order = jnp.arange(2.0, 6.0)[:, None]
    lumps = 0.2 * waves / order * jnp.cos(order * angle[None, :] + jnp.pi * phases)
    reach = 1 + deform * (jnp.sum(lumps, axis=0) + 0.3 * spiral * (along - 0.5))
    around = jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1)
    around = jnp.sign(around) * jnp.abs(around) ** (1 - deform * _between(box, -0.15, 0.45))
    loop = REACH * reach[:, None] * around + 0.025 * deform * wobble

    lead = _tail(lead, loop[1], loop[0], deform, 0.3, 0.7)
    tail = _tail(tail, loop[-2], loop[-1], deform, 0.5, 1.3)
    return jnp.concatenate([_segments(loop), _segments(lead), _segments(tail)])


def _tail(
    numbers: Array,
    before: Array,
    end: Array,
    deform: Strength,
    probability: float | Array,
    reach: float,
    count: int = 4,
) -> Array:
    """Points that carry a stroke on past its end: mostly a little, sometimes far, straight on or turning."""
    length = jnp.where(_chance(numbers[0], probability, deform), reach * deform * _between(numbers[1], 0.2, 1) ** 2, 0)
    ahead = end - before
    angle = jnp.arctan2(ahead[0], ahead[1]) + 2.6 * numbers[2] + 0.9 * numbers[3] * jnp.arange(0.0, count)
    steps = length / count * jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1)
    return jnp.concatenate([end[None], end[None] + jnp.cumsum(steps, axis=0)])


def _form(numbers: Array, stretch: Strength, rotate: Strength, slant: Strength) -> Array:
    """The linear map that stretches, slants and turns; points are rows (y, x) and stand before it."""
    tall = jnp.exp(0.5 * stretch * numbers[0])
    lean = -0.5 * slant * numbers[1]
    angle = jnp.pi / 4 * rotate * numbers[2]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    leaning = jnp.stack([jnp.stack([tall, lean]), jnp.stack([jnp.zeros_like(tall), 1 / tall])])
    return leaning @ jnp.stack([jnp.stack([cos, sin]), jnp.stack([-sin, cos])])


def _pen(numbers: Array, letter: Array, thickness: Strength) -> Array:
    """The pen's radius for each segment; three nibs of ten are broad, thin along an angle of their own."""
    size, broad, angle, flat = numbers
    ahead = letter[:, 1] - letter[:, 0]
    along = jnp.cos(jnp.arctan2(ahead[:, 0], ahead[:, 1]) - jnp.pi * angle) ** 2
    thin = jnp.where(_chance(broad, 0.3, 1), 0.7 * jnp.minimum(thickness, 1) * _between(flat, 0, 1), 0)
    return RADIUS * jnp.exp(thickness * _between(size, -1, 1.2)) * (1 - thin * along)


def _place(
    numbers: Array, letter: Array, radius: Array, size: int, shift: Strength, shrink: Strength
) -> tuple[Array, Array]:
    """Fits the letter into the frame, shrinks it, and moves it within the room that is left."""
    low = jnp.min(letter - radius[:, None, None], axis=(0, 1))
    high = jnp.max(letter + radius[:, None, None], axis=(0, 1))
    extent = (high - low) / 2
    scale = jnp.minimum(1, 0.95 / jnp.max(extent)) * jnp.exp(-0.6 * shrink * _between(numbers[0], 0, 1))
    centre = shift * jnp.maximum(1 - scale * extent, 0) * numbers[1:]
    letter = (letter - (low + high)[None, None] / 2) * scale + centre[None, None]
    return letter, jnp.maximum(radius * scale, 0.8 / size)


def _ink(letter: Array, radius: Array, edge: Array, size: int) -> Array:
    """How much of each pixel is ink, 0 to 1: the antialiased distance to the nearest segment."""
    centres = (jnp.arange(size, dtype=letter.dtype) + 0.5) / size * 2 - 1

    def depth(segment: Array, radius: Array) -> Array:
        (y0, x0), (y1, x1) = segment
        dy, dx = y1 - y0, x1 - x0
        y, x = centres[:, None] - y0, centres[None, :] - x0
        along = jnp.clip((y * dy + x * dx) / jnp.maximum(dy * dy + dx * dx, 1e-9), 0, 1)
        return radius - jnp.hypot(y - along * dy, x - along * dx)

    deepest = jnp.max(jax.vmap(depth)(letter, radius), axis=0)
    return jnp.clip(0.5 + deepest * (size / 2) / edge, 0, 1)
