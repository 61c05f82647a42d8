"""Mixtures of two examples: mixup and CutMix."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Shaped

from ._dtypes import accumulation_dtype
from ._object_checks import check_key
from ._programs import compiled
from ._typing import AnyArray
from ._validation import check_arrays, check_number, check_shape, to_floats

# An image and the probability of each class.
Example = tuple[Shaped[ArrayLike, "H W *C"], Shaped[ArrayLike, " K"]]
CheckedExample = tuple[AnyArray, AnyArray]
FloatExample = tuple[Float[Array, "H W *C"], Float[Array, " K"]]


def mixup(key: Array, first: Example, second: Example, *, alpha: float | Shaped[ArrayLike, ""] = 0.2) -> FloatExample:
    """Mixup: the weighted mean of two images and of their class probabilities.

    Args:
      key: a random key, of one draw.
      first, second: two examples, each an image and its class probabilities, of the same shapes.
      alpha: above 0. The weight of the first example is drawn from Beta(alpha, alpha).

    Returns:
      The mixed image and its class probabilities.

    Raises:
      ValueError: images or labels of different shapes or of a wrong rank, alpha that is not finite and above 0.
      TypeError: a key that is not a random key, images or labels that are not of real numbers, alpha that is not a
        number.

    Source: Zhang, Cisse, Dauphin and Lopez-Paz, "mixup: Beyond Empirical Risk Minimization" (2018),
    https://arxiv.org/abs/1710.09412

    >>> white = (jnp.ones((1, 1)), jnp.array([1.0, 0.0]))
    >>> black = (-jnp.ones((1, 1)), jnp.array([0.0, 1.0]))
    >>> image, label = mixup(jax.random.key(0), white, black, alpha=1.0)
    >>> bool(jnp.allclose(image, label[0] - label[1]))
    True
    """
    check_key(key)
    examples = _check_examples(first, second)
    return _mixup(key, *examples, _check_alpha(alpha))


def cutmix(key: Array, first: Example, second: Example, *, alpha: float | Shaped[ArrayLike, ""] = 1.0) -> FloatExample:
    """CutMix: an image with a rectangle of another one, and class probabilities weighted by area.

    Args:
      key: a random key, of one draw.
      first, second: two examples, each an image and its class probabilities, of the same shapes.
      alpha: above 0. The first image's share of the area is drawn from Beta(alpha, alpha). The rectangle is clipped at
        the image border; the weights are those of the areas after clipping.

    Returns:
      The mixed image and its class probabilities.

    Raises:
      ValueError: images or labels of different shapes or of a wrong rank, alpha that is not finite and above 0.
      TypeError: a key that is not a random key, images or labels that are not of real numbers, alpha that is not a
        number.

    Source: Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features" (2019),
    https://arxiv.org/abs/1905.04899

    >>> white = (jnp.ones((8, 8)), jnp.array([1.0, 0.0]))
    >>> black = (-jnp.ones((8, 8)), jnp.array([0.0, 1.0]))
    >>> image, label = cutmix(jax.random.key(0), white, black)
    >>> bool(jnp.allclose(image.mean(), label[0] - label[1]))
    True
    """
    check_key(key)
    examples = _check_examples(first, second)
    return _cutmix(key, *examples, _check_alpha(alpha))


@compiled()
def _mixup(key: Array, first: CheckedExample, second: CheckedExample, alpha: float | Array) -> FloatExample:
    (image, label), (second_image, second_label) = _float_examples(first, second)
    weight = _beta_draw(key, alpha, image)
    return _weighted_mean(weight, image, second_image), _weighted_mean(weight, label, second_label)


@compiled()
def _cutmix(key: Array, first: CheckedExample, second: CheckedExample, alpha: float | Array) -> FloatExample:
    (image, label), (second_image, second_label) = _float_examples(first, second)
    share_key, box_key = jax.random.split(key)
    side = jnp.sqrt(1 - _beta_draw(share_key, alpha, image))
    rows, columns = (jnp.round(side * length).astype(jnp.int32) for length in image.shape[:2])
    is_second = random_box(box_key, image, rows, columns)
    # 16-bit floats cannot count the pixels of an image.
    share = 1 - jnp.mean(is_second, dtype=accumulation_dtype(label.dtype))
    return jnp.where(is_second, second_image, image), _weighted_mean(share, label, second_label)


def random_box(key: Array, image: Array, rows: Array, columns: Array) -> Bool[Array, "H W *ones"]:
    """Whether each pixel is in a box of rows x columns around a random pixel: (H, W), or (H, W, 1) for channels."""
    row_key, column_key = jax.random.split(key)
    in_rows = _random_interval(row_key, image.shape[0], rows)
    in_columns = _random_interval(column_key, image.shape[1], columns)
    box = in_rows[:, None] & in_columns[None, :]
    return box.reshape(box.shape + (1,) * (image.ndim - 2))


def _random_interval(key: Array, size: int, length: Array) -> Bool[Array, " size"]:
    """Whether each position of an axis is in an interval of `length` around a random position."""
    first = jax.random.randint(key, (), 0, size, jnp.int32) - length // 2
    positions = jnp.arange(size, dtype=jnp.int32)
    return (positions >= first) & (positions < first + length)


def _check_examples(first: Example, second: Example) -> tuple[CheckedExample, CheckedExample]:
    image, second_image = check_arrays(first=first[0], second=second[0])
    label, second_label = check_arrays(first=first[1], second=second[1])
    check_shape("first", image, "H W", "H W C")
    _check_same_shape(image, second_image)
    _check_same_shape(label, second_label)
    if label.ndim != 1:
        raise ValueError(f"first: expected a label with a probability for every class, got shape {label.shape}")
    return (image, label), (second_image, second_label)


def _check_alpha(alpha: float | Shaped[ArrayLike, ""]) -> float | Array:
    return check_number("alpha", alpha, "a finite number above 0", lambda alpha: alpha > 0)


def _float_examples(first: CheckedExample, second: CheckedExample) -> tuple[FloatExample, FloatExample]:
    image, second_image = to_floats(first[0], second[0])
    label, second_label = to_floats(first[1], second[1])
    return (image, label), (second_image, second_label)


def _check_same_shape(first: AnyArray, second: AnyArray) -> None:
    if first.shape != second.shape:
        raise ValueError(f"second: expected the shape of first {first.shape}, got {second.shape}")


def _beta_draw(key: Array, alpha: float | Array, image: Array) -> Float[Array, ""]:
    """A draw from Beta(alpha, alpha), in the dtype to add up the image in."""
    dtype = accumulation_dtype(image.dtype)
    concentration = jnp.asarray(alpha, dtype)
    return jax.random.beta(key, concentration, concentration, dtype=dtype)


def _weighted_mean(weight: Array, first: Array, second: Array) -> Array:
    """`weight` times the first plus 1 - weight times the second, in the dtype of the first."""
    dtype = accumulation_dtype(first.dtype)
    weight = weight.astype(dtype)
    return (weight * first.astype(dtype) + (1 - weight) * second.astype(dtype)).astype(first.dtype)
