"""Resampling of one image: bilinear interpolation, affine maps and elastic deformation."""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, ArrayLike, Float, Shaped

from ._dtypes import accumulation_dtype
from ._programs import compiled
from ._typing import AnyArray, Scalar
from ._validation import check_arrays, check_image, check_numbers, check_shape, to_floats

__all__ = ["affine", "affine_matrix", "elastic", "resample"]


def resample(
    image: Shaped[ArrayLike, "H W *C"],
    rows: Shaped[ArrayLike, "h w"],
    columns: Shaped[ArrayLike, "h w"],
    *,
    fill: float = -1.0,
) -> Float[Array, "h w *C"]:
    """Bilinear interpolation of an image at fractional coordinates.

    Args:
      image: (H, W) or (H, W, C). Integers and bools become float32.
      rows: the row of every output pixel. Pixel centers have whole numbers.
      columns: the column of every output pixel.
      fill: the value outside of the image, a Python number; black by default.

    Returns:
      The interpolated image, differentiable in image, rows and columns.

    Raises:
      ValueError: an array has the wrong rank or is empty, or rows and columns have different shapes.
      TypeError: an array does not hold real numbers.

    >>> resample(jnp.array([[0.0, 4.0]]), jnp.zeros((1, 3)), jnp.array([[0.0, 0.25, 2.0]]))
    Array([[ 0.,  1., -1.]], dtype=float32)
    """
    image = check_image(image)
    rows, columns = check_arrays(rows=rows, columns=columns)
    check_shape("rows", rows, "h w")
    if rows.shape != columns.shape:
        raise ValueError(f"columns: expected the shape of rows {rows.shape}, got {columns.shape}")
    return _resample_checked(image, rows, columns, fill)


def affine(
    image: Shaped[ArrayLike, "H W *C"], matrix: Shaped[ArrayLike, "2 3"], *, fill: float = -1.0
) -> Float[Array, "H W *C"]:
    """Affine map of an image about its center.

        out[(a y + b x + dy, c y + d x + dx)] = image[(y, x)],  matrix = [[a, b, dy], [c, d, dx]]

    Positions (y, x) are rows and columns from the center, in pixels.

    Args:
      image: (H, W) or (H, W, C). Integers and bools become float32.
      matrix: the map; `affine_matrix` makes one from an angle, scales, a shear and a shift.
      fill: the value outside of the image, a Python number; black by default.

    Returns:
      The mapped image, interpolated bilinearly. A matrix without inverse gives NaN or `fill`.

    Raises:
      ValueError: the image has the wrong rank or is empty, or the matrix is not (2, 3).
      TypeError: an array does not hold real numbers.

    >>> affine(jnp.eye(3), affine_matrix(angle=jnp.pi / 2)).round(3) + 0.0
    Array([[0., 0., 1.],
           [0., 1., 0.],
           [1., 0., 0.]], dtype=float32)
    """
    image = check_image(image)
    (matrix,) = check_arrays(matrix=matrix)
    if matrix.shape != (2, 3):
        raise ValueError(f"matrix: expected shape (2, 3), got {matrix.shape}")
    return _affine(image, matrix, fill)


def affine_matrix(
    *,
    angle: Scalar = 0.0,
    scale: Scalar | tuple[float, float] | Shaped[ArrayLike, " 2"] = 1.0,
    shear: Scalar = 0.0,
    shift: tuple[float, float] | Shaped[ArrayLike, " 2"] = (0.0, 0.0),
) -> Float[Array, "2 3"]:
    """The matrix for `affine` that scales, then shears, then rotates, then shifts.

        [R(angle) [[1, 0], [-shear, 1]] diag(scale)  |  shift]

    Args:
      angle: radians, counterclockwise as seen.
      scale: one factor, or (rows, columns).
      shear: columns by which the top leans to the right, per row.
      shift: pixels (down, right).

    Raises:
      ValueError: an argument has another shape.
      TypeError: an argument is not of real numbers.

    >>> affine_matrix(scale=2, shift=(0.0, 3.0)) + 0.0
    Array([[2., 0., 0.],
           [0., 2., 3.]], dtype=float32)
    """
    angles, shears, scales, shifts = check_numbers(angle=angle, shear=shear, scale=scale, shift=shift)
    _check_exact_shape("angle", angles, ())
    _check_exact_shape("shear", shears, ())
    _check_exact_shape("scale", scales, (), (2,))
    _check_exact_shape("shift", shifts, (2,))
    return _affine_matrix(angles, shears, scales, shifts)


def elastic(
    image: Shaped[ArrayLike, "H W *C"], offsets: Shaped[ArrayLike, "g g2 2"], *, fill: float = -1.0
) -> Float[Array, "H W *C"]:
    """Elastic deformation: every pixel is read at an offset that varies smoothly over the image.

        out[y, x] = image[y + dy, x + dx],  (dy, dx) = offsets, interpolated cubically at (y, x)

    A 3x3 or 4x4 grid of normally distributed offsets imitates the variation of handwriting.

    Args:
      image: (H, W) or (H, W, C). Integers and bools become float32.
      offsets: pixels (down, right) at a coarse grid of points, which are spaced evenly over the image.
      fill: the value outside of the image, a Python number; black by default.

    Raises:
      ValueError: an array has the wrong rank or is empty, or offsets are not (rows, columns, 2).
      TypeError: an array does not hold real numbers.

    Source: after Simard, Steinkraus and Platt, "Best Practices for Convolutional Neural Networks Applied to Visual
    Document Analysis" (2003), https://doi.org/10.1109/ICDAR.2003.1227801, with a coarse grid instead of smoothed noise.

    >>> elastic(jnp.eye(3), jnp.zeros((2, 2, 2)))
    Array([[1., 0., 0.],
           [0., 1., 0.],
           [0., 0., 1.]], dtype=float32)
    """
    image = check_image(image)
    (offsets,) = check_arrays(offsets=offsets)
    check_shape("offsets", offsets, "rows columns 2")
    if offsets.shape[2] != 2:
        raise ValueError(f"offsets: expected shape (rows, columns, 2), got {offsets.shape}")
    return _elastic(image, offsets, fill)


@compiled("fill")
def _resample_checked(image: Array, rows: Array, columns: Array, fill: float) -> Array:
    (image,) = to_floats(image)
    rows, columns = to_floats(rows, columns)
    return _resample(image, rows, columns, fill)


@compiled("fill")
def _affine(image: Array, matrix: Array, fill: float) -> Array:
    (image,) = to_floats(image)
    (matrix,) = to_floats(matrix)
    matrix = matrix.astype(accumulation_dtype(image.dtype))
    a = matrix[0, 0]
    b = matrix[0, 1]
    c = matrix[1, 0]
    d = matrix[1, 1]
    rows, columns = _pixel_grid(image)
    y_center = (image.shape[0] - 1) / 2
    x_center = (image.shape[1] - 1) / 2
    y = rows - y_center - matrix[0, 2]
    x = columns - x_center - matrix[1, 2]
    determinant = a * d - b * c
    source_rows = (d * y - b * x) / determinant + y_center
    source_columns = (a * x - c * y) / determinant + x_center
    return _resample(image, source_rows, source_columns, fill)


@compiled()
def _affine_matrix(angle: Array | float, shear: Array | float, scale: Array | float, shift: Array | float) -> Array:
    angles, shears, scales, shifts = to_floats(angle, shear, scale, shift)
    sy, sx = jnp.broadcast_to(scales, (2,))
    cos = jnp.cos(angles)
    sin = jnp.sin(angles)
    top = [(cos + sin * shears) * sy, -sin * sx, shifts[0]]
    bottom = [(sin - cos * shears) * sy, cos * sx, shifts[1]]
    return jnp.stack([jnp.stack(top), jnp.stack(bottom)])


@compiled("fill")
def _elastic(image: Array, offsets: Array, fill: float) -> Array:
    (image,) = to_floats(image)
    (offsets,) = to_floats(offsets)
    moves = jax.image.resize(offsets.astype(accumulation_dtype(image.dtype)), (*image.shape[:2], 2), "cubic")
    rows, columns = _pixel_grid(image)
    return _resample(image, rows + moves[..., 0], columns + moves[..., 1], fill)


def _resample(image: Array, rows: Array, columns: Array, fill: float) -> Array:
    dtype = accumulation_dtype(image.dtype)  # 16-bit floats cannot represent large pixel coordinates
    coordinates = [rows.astype(dtype), columns.astype(dtype)]

    def interpolate(channel: Array) -> Array:
        return map_coordinates(channel, coordinates, order=1, mode="constant", cval=fill)

    channels = image.astype(dtype)
    over_channels = interpolate if image.ndim == 2 else jax.vmap(interpolate, in_axes=-1, out_axes=-1)
    return over_channels(channels).astype(image.dtype)


def _pixel_grid(image: Array) -> tuple[Array, Array]:
    """The row and the column of every pixel."""
    shape = image.shape[:2]
    rows, columns = (jnp.arange(n, dtype=accumulation_dtype(image.dtype)) for n in shape)
    return jnp.broadcast_to(rows[:, None], shape), jnp.broadcast_to(columns[None, :], shape)


def _check_exact_shape(name: str, value: AnyArray | float, *accepted: tuple[int, ...]) -> None:
    shape = jnp.shape(value)
    if shape not in accepted:
        raise ValueError(f"{name}: expected shape {' or '.join(map(str, accepted))}, got {shape}")
