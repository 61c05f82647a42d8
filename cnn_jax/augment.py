"""Random variations of one image: one key makes one draw, and `jax.vmap` over `jax.random.split` varies a batch.

    keys = jax.random.split(key, len(images))
    images = jax.vmap(lambda key, image: crop(key, flip(key, image)))(keys, images)

Images are (H, W) or (H, W, C), and keep their shape; integers and bools become float32. Numbers that say how far to go
(angles, scales, a strength, alpha) may be traced, to follow a schedule; others are checked: a ValueError tells of one
that is not finite or out of range, a TypeError of what is no number.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Num

from . import warping
from ._dtypes import accumulation_dtype
from ._validation import as_floats, check_int, check_number, check_shape

Key = Array


def flip(key: Key, image: Num[Array, "H W *C"]) -> Float[Array, "H W *C"]:
    """Mirrors left and right, in half of all draws.

    >>> image = jnp.array([[0.0, 1.0]])
    >>> jax.vmap(flip, (0, None))(jax.random.split(jax.random.key(0), 3), image)[:, 0]
    Array([[0., 1.],
           [1., 0.],
           [0., 1.]], dtype=float32)
    """
    image = _image(image)
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def alternating_flip(key: Key, image: Num[Array, "H W *C"], *, epoch: int | Int[Array, ""]) -> Float[Array, "H W *C"]:
    """Mirrors left and right in every second epoch, so that two epochs show every image both ways.

    `key` must be the image's own and the same in every epoch: it says whether the even or the odd ones mirror it.

    Source: Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024).

    >>> image, key = jnp.array([[0.0, 1.0]]), jax.random.key(0)
    >>> jnp.concatenate([alternating_flip(key, image, epoch=epoch) for epoch in range(3)])
    Array([[0., 1.],
           [1., 0.],
           [0., 1.]], dtype=float32)
    """
    image = _image(image)
    mirrored = jax.random.bernoulli(key) ^ (jnp.asarray(epoch) % 2 == 1)
    return jnp.where(mirrored, image[:, ::-1], image)


def crop(key: Key, image: Num[Array, "H W *C"], *, border: int = 4) -> Float[Array, "H W *C"]:
    """Cuts the image's size out of the image with a border of its own reflection, `border` pixels wide.

    Raises a ValueError for a border that is not smaller than the image, which has too little to reflect.

    >>> crop(jax.random.key(1), jnp.arange(4.0)[None].repeat(2, 0), border=1)
    Array([[1., 2., 3., 2.],
           [1., 2., 3., 2.]], dtype=float32)
    """
    image, border = _image(image), check_int("border", border)
    if border >= min(image.shape[:2]):
        raise ValueError(f"border: expected less than the image of {image.shape[:2]}, got {border}")
    return _somewhere(key, jnp.pad(image, _around(image, border), mode="reflect"), image.shape, border)


def shift(key: Key, image: Num[Array, "H W *C"], *, max_shift: int = 2, fill: float = -1.0) -> Float[Array, "H W *C"]:
    """Moves by up to `max_shift` whole pixels along each axis; what comes in is `fill`, black unless told otherwise.

    >>> shift(jax.random.key(1), jnp.ones((2, 3)), max_shift=1)
    Array([[ 1.,  1., -1.],
           [ 1.,  1., -1.]], dtype=float32)
    """
    image, max_shift = _image(image), check_int("max_shift", max_shift)
    return _somewhere(key, jnp.pad(image, _around(image, max_shift), constant_values=fill), image.shape, max_shift)


def affine(
    key: Key,
    image: Num[Array, "H W *C"],
    *,
    angle: float = 0.2,
    scale: float = 0.1,
    shear: float = 0.1,
    shift: float = 0.0,
    fill: float = -1.0,
) -> Float[Array, "H W *C"]:
    """Turns, scales, shears and moves an image about its centre, all drawn uniformly, the scales' logarithms that is.

    Args:
      key: one draw.
      image: the image.
      angle: at most so many radians either way.
      scale: rows and columns, each by itself, become at most 1 + scale times as long or as short.
      shear: at most so many columns per row either way.
      shift: at most so many pixels along each axis.
      fill: what comes in from outside; black unless told otherwise.

    >>> affine(jax.random.key(0), jnp.ones((4, 4)), angle=0.5).shape
    (4, 4)
    """
    image = _image(image)
    wide = accumulation_dtype(image.dtype)
    scale = check_number("scale", scale, "a finite number of at least 0", lambda scale: scale >= 0)
    ranges = check_number("angle", angle), scale, check_number("shear", shear), check_number("shift", shift)
    angles, scales, shears, shifts = (jnp.asarray(most, wide) for most in ranges)
    draw = jax.random.uniform(key, (6,), wide, -1)
    matrix = warping.affine_matrix(
        angle=angles * draw[0], scale=(1 + scales) ** draw[1:3], shear=shears * draw[3], shift=shifts * draw[4:]
    )
    return warping.affine(image, matrix, fill=fill)


def elastic(
    key: Key, image: Num[Array, "H W *C"], *, strength: float = 1.0, grid: int = 4, fill: float = -1.0
) -> Float[Array, "H W *C"]:
    """Deforms an image smoothly: each of `grid` x `grid` points is moved by normal draws of deviation `strength`, in
    pixels, and cubic interpolation moves the pixels along.

    Their own moves deviate by about 0.6 to 1.3 times as much: the least halfway between points, the most in corners.
    Raises a ValueError for a grid finer than half of the shorter side, which would be noise and no deformation.

    Source: after Simard, Steinkraus and Platt, "Best Practices for Convolutional Neural Networks" (2003).

    >>> elastic(jax.random.key(0), jnp.ones((8, 8))).shape
    (8, 8)
    """
    image, grid = _image(image), check_int("grid", grid)
    if 2 * grid > min(image.shape[:2]):
        raise ValueError(f"grid: expected at most half of the shorter side of {image.shape[:2]}, got {grid}")
    wide = accumulation_dtype(image.dtype)
    offsets = jnp.asarray(check_number("strength", strength), wide) * jax.random.normal(key, (grid, grid, 2), wide)
    return warping.elastic(image, offsets, fill=fill)


def cutout(key: Key, image: Num[Array, "H W *C"], *, size: int, fill: float = 0.0) -> Float[Array, "H W *C"]:
    """Covers a square of `size` pixels, centred anywhere in the image, with `fill`, grey unless told otherwise.

    Source: DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout" (2017).

    >>> cutout(jax.random.key(0), jnp.ones((3, 4)), size=2)
    Array([[1., 0., 0., 1.],
           [1., 0., 0., 1.],
           [1., 1., 1., 1.]], dtype=float32)
    """
    image, size = _image(image), check_int("size", size)
    return jnp.where(_box(key, image, jnp.int32(size), jnp.int32(size)), jnp.asarray(fill, image.dtype), image)


Example = tuple[Array, Array]  # an image, and how probable every class is


def mixup(key: Key, first: Example, second: Example, *, alpha: float = 0.2) -> Example:
    """A mean of two images (weights drawn from Beta(alpha, alpha)), and of how probable their classes are.

    Source: Zhang, Cisse, Dauphin and Lopez-Paz, "mixup: Beyond Empirical Risk Minimization" (2018).

    >>> white, black = (jnp.ones((1, 1)), jnp.array([1.0, 0.0])), (-jnp.ones((1, 1)), jnp.array([0.0, 1.0]))
    >>> image, label = mixup(jax.random.key(0), white, black, alpha=1.0)
    >>> bool(jnp.allclose(image, label[0] - label[1]))
    True
    """
    (image, label), (other, other_label) = _pair(first, second)
    share = _share(key, alpha, image)
    return _mixed(share, image, other), _mixed(share, label, other_label)


def cutmix(key: Key, first: Example, second: Example, *, alpha: float = 1.0) -> Example:
    """An image with a rectangle of another in it, whose share of the area (drawn from Beta(alpha, alpha), less what
    hangs over the edge) is that of the other's classes.

    Source: Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers" (2019).

    >>> white, black = (jnp.ones((8, 8)), jnp.array([1.0, 0.0])), (-jnp.ones((8, 8)), jnp.array([0.0, 1.0]))
    >>> image, label = cutmix(jax.random.key(0), white, black)
    >>> bool(jnp.allclose(image.mean(), label[0] - label[1]))
    True
    """
    (image, label), (other, other_label) = _pair(first, second)
    share_key, box_key = jax.random.split(key)
    side = jnp.sqrt(1 - _share(share_key, alpha, image))
    rows, columns = (jnp.round(side * n).astype(jnp.int32) for n in image.shape[:2])
    box = _box(box_key, image, rows, columns)
    share = 1 - jnp.mean(box, dtype=accumulation_dtype(label.dtype))  # 16 bits do not count the pixels
    return jnp.where(box, other, image), _mixed(share, label, other_label)


def _image(image: Num[Array, "H W *C"]) -> Float[Array, "H W *C"]:
    (image,) = as_floats(image=image)
    check_shape("image", image, "H W", "H W C")
    return image


def _pair(first: Example, second: Example) -> tuple[Example, Example]:
    image, other = as_floats(first=first[0], second=second[0])
    label, other_label = as_floats(first=first[1], second=second[1])
    check_shape("first", image, "H W", "H W C")
    for mine, theirs in ((image, other), (label, other_label)):
        if mine.shape != theirs.shape:
            raise ValueError(f"second: expected the shape of first {mine.shape}, got {theirs.shape}")
    if label.ndim != 1:
        raise ValueError(f"first: expected a label with a probability for every class, got shape {label.shape}")
    return (image, label), (other, other_label)


def _share(key: Key, alpha: float, image: Array) -> Array:
    """A draw from Beta(alpha, alpha)."""
    wide = accumulation_dtype(image.dtype)
    both = jnp.asarray(check_number("alpha", alpha, "a finite number above 0", lambda alpha: alpha > 0), wide)
    return jax.random.beta(key, both, both, dtype=wide)


def _mixed(share: Array, first: Array, second: Array) -> Array:
    """So much of the first and the rest of the second, whatever dtype the share was drawn in."""
    wide = accumulation_dtype(first.dtype)
    share = share.astype(wide)
    return (share * first.astype(wide) + (1 - share) * second.astype(wide)).astype(first.dtype)


def _around(image: Array, border: int) -> list[tuple[int, int]]:
    return [(border, border)] * 2 + [(0, 0)] * (image.ndim - 2)


def _somewhere(key: Key, large: Array, shape: tuple[int, ...], border: int) -> Array:
    """A piece of this shape, out of an image that is larger by the border all around."""
    row, column = jax.random.randint(key, (2,), 0, 2 * border + 1)
    return lax.dynamic_slice(large, [row, column] + [jnp.zeros_like(row)] * (len(shape) - 2), shape)


def _box(key: Key, image: Array, rows: Array, columns: Array) -> Array:
    """Where a box of so many rows and columns, centred on a random pixel, lies in the image, (H, W) or (H, W, 1)."""
    inside = []
    for own, length, n in zip(jax.random.split(key), (rows, columns), image.shape[:2], strict=True):
        first = jax.random.randint(own, (), 0, n, jnp.int32) - length // 2
        places = jnp.arange(n, dtype=jnp.int32)
        inside.append((places >= first) & (places < first + length))
    box = inside[0][:, None] & inside[1][None, :]
    return box.reshape(box.shape + (1,) * (image.ndim - 2))
