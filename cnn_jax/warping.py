"""Resampling one image at other places: affine maps and elastic deformation."""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Num

from ._dtypes import accumulation_dtype
from ._validation import as_floats, check_shape


def resample(
    image: Num[Array, "H W *C"], rows: Num[Array, "h w"], columns: Num[Array, "h w"], *, fill: float = -1.0
) -> Float[Array, "h w *C"]:
    """Reads an image between its pixels, bilinearly, at the given rows and columns (pixel centres are whole numbers).

    Beyond the image everything is `fill`, a Python number, black unless told otherwise.
    Differentiable in the image and in the places.

    Raises:
      ValueError: a wrong rank, an empty array, rows and columns of different shapes.
      TypeError: arrays that are not real numbers.

    >>> resample(jnp.array([[0.0, 4.0]]), jnp.zeros((1, 3)), jnp.array([[0.0, 0.25, 2.0]]))
    Array([[ 0.,  1., -1.]], dtype=float32)
    """
    (image,), (rows, columns) = as_floats(image=image), as_floats(rows=rows, columns=columns)
    check_shape("image", image, "H W", "H W C")
    check_shape("rows", rows, "h w")
    if rows.shape != columns.shape:
        raise ValueError(f"columns: expected the shape of rows {rows.shape}, got {columns.shape}")

    wide = accumulation_dtype(image.dtype)  # 16 bits do not count the pixels of a wide image
    places = [rows.astype(wide), columns.astype(wide)]

    def read(channel: Array) -> Array:
        return map_coordinates(channel, places, order=1, mode="constant", cval=fill)

    channels = image.astype(wide)
    out = read(channels) if image.ndim == 2 else jax.vmap(read, in_axes=-1, out_axes=-1)(channels)
    return out.astype(image.dtype)


def affine(image: Num[Array, "H W *C"], matrix: Num[Array, "2 3"], *, fill: float = -1.0) -> Float[Array, "H W *C"]:
    """Moves an image by an affine map about its centre.

    `matrix` is [[a, b, dy], [c, d, dx]]: what stood at (y, x) from the centre comes to
    (a y + b x + dy, c y + d x + dx), rows first and in pixels.
    `affine_matrix` makes one from an angle, scales, a shear and a shift.

    Raises:
      ValueError: a wrong rank, an empty image, a matrix that is not (2, 3). A matrix that cannot be inverted only shows
        at run time and gives NaN or `fill`.
      TypeError: arrays that are not real numbers.

    >>> affine(jnp.eye(3), affine_matrix(angle=jnp.pi / 2)).round(3) + 0.0
    Array([[0., 0., 1.],
           [0., 1., 0.],
           [1., 0., 0.]], dtype=float32)
    """
    (image,), (matrix,) = as_floats(image=image), as_floats(matrix=matrix)
    check_shape("image", image, "H W", "H W C")
    matrix = matrix.astype(accumulation_dtype(image.dtype))
    if matrix.shape != (2, 3):
        raise ValueError(f"matrix: expected shape (2, 3), got {matrix.shape}")
    a, b, c, d = matrix[0, 0], matrix[0, 1], matrix[1, 0], matrix[1, 1]
    rows, columns = _grid(image)
    y_mid, x_mid = (image.shape[0] - 1) / 2, (image.shape[1] - 1) / 2
    y, x = rows - y_mid - matrix[0, 2], columns - x_mid - matrix[1, 2]
    det = a * d - b * c
    return resample(image, (d * y - b * x) / det + y_mid, (a * x - c * y) / det + x_mid, fill=fill)


def affine_matrix(
    *,
    angle: float | Float[Array, ""] = 0.0,
    scale: float | Float[Array, ""] | tuple[float, float] | Float[Array, " 2"] = 1.0,
    shear: float | Float[Array, ""] = 0.0,
    shift: tuple[float, float] | Float[Array, " 2"] = (0.0, 0.0),
) -> Float[Array, "2 3"]:
    """The matrix for `affine`: scale, then shear, then turn, then shift.

        R(angle) [[1, 0], [-shear, 1]] diag(scale)  |  shift

    `angle` is in radians, counterclockwise as seen; `scale` is one factor or (rows, columns); `shear` leans the top
    rightwards by `shear` columns per row; `shift` is in pixels, (down, right). Raises a ValueError for other shapes.

    >>> affine_matrix(scale=2, shift=(0.0, 3.0)) + 0.0
    Array([[2., 0., 0.],
           [0., 2., 3.]], dtype=float32)
    """
    angle, shear, scale, shift = as_floats(angle=angle, shear=shear, scale=scale, shift=shift)
    accepted = {"angle": (angle, [()]), "shear": (shear, [()]), "scale": (scale, [(), (2,)]), "shift": (shift, [(2,)])}
    for name, (value, shapes) in accepted.items():
        if value.shape not in shapes:
            raise ValueError(f"{name}: expected shape {' or '.join(map(str, shapes))}, got {value.shape}")
    sy, sx = jnp.broadcast_to(scale, (2,))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    top = [(cos + sin * shear) * sy, -sin * sx, shift[0]]
    bottom = [(sin - cos * shear) * sy, cos * sx, shift[1]]
    return jnp.stack([jnp.stack(top), jnp.stack(bottom)])


def elastic(
    image: Num[Array, "H W *C"], offsets: Num[Array, "g g2 2"], *, fill: float = -1.0
) -> Float[Array, "H W *C"]:
    """Deforms an image smoothly: each pixel is read `offsets` pixels (down, right) away.

    The offsets stand on a coarse grid spread evenly over the image and are interpolated cubically between its cells:
    a 3x3 or 4x4 grid of normal draws gives the wobble of handwriting.

    Raises:
      ValueError: a wrong rank, an empty array, offsets that are not (rows, columns, 2).
      TypeError: arrays that are not real numbers.

    Source: after Simard, Steinkraus and Platt, "Best Practices for Convolutional Neural Networks" (2003), with a coarse
    grid in place of smoothed noise.

    >>> elastic(jnp.eye(3), jnp.zeros((2, 2, 2)))
    Array([[1., 0., 0.],
           [0., 1., 0.],
           [0., 0., 1.]], dtype=float32)
    """
    (image,), (offsets,) = as_floats(image=image), as_floats(offsets=offsets)
    check_shape("image", image, "H W", "H W C")
    check_shape("offsets", offsets, "rows columns 2")
    if offsets.shape[2] != 2:
        raise ValueError(f"offsets: expected shape (rows, columns, 2), got {offsets.shape}")
    moves = jax.image.resize(offsets.astype(accumulation_dtype(image.dtype)), (*image.shape[:2], 2), "cubic")
    rows, columns = _grid(image)
    return resample(image, rows + moves[..., 0], columns + moves[..., 1], fill=fill)


def _grid(image: Array) -> tuple[Array, Array]:
    rows, columns = (jnp.arange(n, dtype=accumulation_dtype(image.dtype)) for n in image.shape[:2])
    shape = image.shape[:2]
    return jnp.broadcast_to(rows[:, None], shape), jnp.broadcast_to(columns[None, :], shape)
