"""Attribution maps: how much each pixel of an image, or each position of a stage, contributes to one logit."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Key, Shaped

from ._activations import find_stage
from ._logits import Label, explain_logit, logit_function, select_logit
from ._mesh_axes import vary_like
from ._object_checks import check_key
from ._typing import Pair, Scalar
from ._validation import as_pair, check_image, check_int, check_number, check_numbers, to_floats
from .layers import Layer, Params


def saliency(
    net: Layer, params: Params, image: Shaped[ArrayLike, "H W C"], *, label: Label = None
) -> Float[Array, "H W"]:
    """Saliency map: the magnitude of the logit's gradient at each pixel.

        out[y, x] = max over c of |∂ logit / ∂ image[y, x, c]|

    Args:
      net, params: a network whose output is a vector of logits (K,).
      image: (H, W, C).
      label: the class to explain, 0 to K - 1; by default the one with the largest logit. A traced label is not checked
        but clipped.

    Returns:
      A map (H, W), at least 0.

    Raises:
      TypeError: the label is not an int.
      ValueError: the image is not (H, W, C), the network's output is not a vector, or there is no such label.

    Source: Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks: Visualising Image Classification
      Models and Saliency Maps" (2013), https://arxiv.org/abs/1312.6034.

    Example:
      >>> from cnn_jax import Chain, Dense, Flatten
      >>> net = Chain(Flatten(), Dense(1))
      >>> params = {"dense1": {"kernel": jnp.array([[2.0], [-3.0]]), "bias": jnp.ones(1)}}
      >>> saliency(net, params, jnp.array([[[0.0], [1.0]]]))
      Array([[2., 3.]], dtype=float32)
    """
    return explain_logit(_saliency, net, params, image, label)


def _saliency(net: Layer, params: Params, image: Array, label: Label) -> Array:
    (image,) = to_floats(image)
    logit = logit_function(net, params, image, label)
    return jnp.abs(jax.grad(logit)(image)).max(axis=-1)


def smooth_grad(
    key: Key[Array, ""],
    net: Layer,
    params: Params,
    image: Shaped[ArrayLike, "H W C"],
    *,
    label: Label = None,
    samples: int = 50,
    noise: Scalar = 0.15,
) -> Float[Array, "H W"]:
    """SmoothGrad: the saliency of the mean gradient over noisy copies of the image.

        out[y, x] = max over c of |mean over copies of ∂ logit / ∂ copy[y, x, c]|

    Averaging suppresses noise in the map.

    Args:
      key: random key.
      net, params, image, label: as in `saliency`; the default label is that of the image without noise.
      samples: number of copies, all in one batch.
      noise: standard deviation of the noise, as a fraction of the image's range (its maximum minus its minimum).

    Returns:
      A map (H, W), at least 0.

    Raises:
      TypeError, ValueError: as `saliency`; `key` is not a random key, `samples` not a positive int, `noise` negative.

    Source: Smilkov, Thorat, Kim, Viégas and Wattenberg, "SmoothGrad: removing noise by adding noise" (2017),
      https://arxiv.org/abs/1706.03825.

    Example:
      >>> from cnn_jax import Chain, Dense, Flatten
      >>> net = Chain(Flatten(), Dense(1))
      >>> params = {"dense1": {"kernel": jnp.array([[2.0], [-3.0]]), "bias": jnp.ones(1)}}
      >>> smooth_grad(jax.random.key(0), net, params, jnp.array([[[0.0], [1.0]]]), samples=4)
      Array([[2., 3.]], dtype=float32)
    """
    check_key(key)
    samples = check_int("samples", samples)
    noise = check_number("noise", noise, "a number of at least 0", lambda noise: noise >= 0)
    return explain_logit(_smooth_grad, net, params, image, label, key, noise, samples=samples)


def _smooth_grad(
    net: Layer, params: Params, image: Array, label: Label, key: Array, noise: Scalar, *, samples: int
) -> Array:
    (image,) = to_floats(image)
    logit = logit_function(net, params, image, label)
    copies = image[None] + noise * jnp.ptp(image) * jax.random.normal(key, (samples, *image.shape), image.dtype)
    return jnp.abs(jax.vmap(jax.grad(logit))(copies).mean(axis=0)).max(axis=-1)


def integrated_gradients(
    net: Layer,
    params: Params,
    image: Shaped[ArrayLike, "H W C"],
    *,
    label: Label = None,
    baseline: Scalar | Shaped[ArrayLike, "H W C"] = -1.0,
    steps: int = 128,
) -> Float[Array, "H W C"]:
    """Integrated gradients: the contribution of each number of the image to the logit, compared with a baseline.

        out = (image - baseline) × mean over t in (0, 1) of ∂ logit / ∂ image at baseline + t (image - baseline)

    The contributions add up to logit(image) - logit(baseline).

    Args:
      net, params, image, label: as in `saliency`.
      baseline: an uninformative image, by default black: a number or an array (H, W, C). Pixels equal to it contribute
        nothing.
      steps: number of gradients in the mean, all in one batch.

    Returns:
      The contributions, (H, W, C).

    Raises:
      TypeError, ValueError: as `saliency`; `steps` is not a positive int, or the baseline has another shape.

    Notes:
      Accuracy: the mean of `steps` gradients misses a part of the sum, a few percent in an untrained ReLU network.
      Unlike in the paper, this residual is redistributed in proportion to the contributions' magnitude. So the sum
      holds, unless all gradients are 0, and does not show whether `steps` suffices: compare with more steps. Large
      residuals can flip signs.

    Source: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks" (2017),
      https://arxiv.org/abs/1703.01365.

    Example:
      >>> from cnn_jax import Chain, Dense, Flatten
      >>> net = Chain(Flatten(), Dense(1))
      >>> params = {"dense1": {"kernel": jnp.array([[2.0], [3.0]]), "bias": jnp.ones(1)}}
      >>> integrated_gradients(net, params, jnp.array([[[0.0, 1.0]]]))
      Array([[[2., 6.]]], dtype=float32)
    """
    steps = check_int("steps", steps)
    image = check_image(image, "H W C")
    (start,) = check_numbers(baseline=baseline)
    if jnp.shape(start) not in ((), image.shape):
        raise ValueError(f"baseline: expected a number or the image's shape {image.shape}, got {jnp.shape(start)}")
    return explain_logit(_integrated_gradients, net, params, image, label, start, steps=steps)


def _integrated_gradients(
    net: Layer, params: Params, image: Array, label: Label, baseline: Array | float, *, steps: int
) -> Array:
    (image,) = to_floats(image)
    (start,) = to_floats(baseline)
    logit = logit_function(net, params, image, label)
    start = jnp.broadcast_to(start.astype(image.dtype), image.shape)
    midpoints = jnp.asarray((np.arange(steps) + 0.5) / steps, image.dtype)
    gradients = jax.vmap(lambda t: jax.grad(logit)(start + t * (image - start)))(midpoints)
    contributions = (image - start) * gradients.mean(axis=0)
    residual = logit(image) - logit(start) - contributions.sum()
    weights = jnp.abs(lax.stop_gradient(contributions))  # keeps derivatives finite where all contributions are 0
    total = weights.sum()
    return contributions + residual * weights / jnp.where(total > 0, total, 1)


def occlusion(
    net: Layer,
    params: Params,
    image: Shaped[ArrayLike, "H W C"],
    *,
    label: Label = None,
    window: int | Sequence[int] = 5,
    stride: int | Sequence[int] = 1,
    fill: Scalar = -1.0,
) -> Float[Array, "H2 W2"]:
    """Occlusion map: how much the logit falls when a window around a pixel is covered.

        out[y, x] = logit(image) - logit(image with the window around pixel (stride y, stride x) covered)

    Positive: the region supports the class.

    Args:
      net, params, image, label: as in `saliency`; the default label is that of the uncovered image.
      window: rows and columns, centered on the pixel; an even window extends one pixel further down and right.
      stride: distance between the pixels that windows are centered on.
      fill: value of covered pixels, by default black.

    Returns:
      A map (ceil(H / stride), ceil(W / stride)).

    Raises:
      TypeError, ValueError: as `saliency`; `window` or `stride` is not positive ints, or `fill` is not finite.

    Notes:
      Cost: all ceil(H / stride) × ceil(W / stride) covered images are one batch; for large images use a larger stride.

    Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (2013),
      https://arxiv.org/abs/1311.2901.

    Example:
      >>> from cnn_jax import Chain, Dense, Flatten
      >>> net = Chain(Flatten(), Dense(1))
      >>> params = {"dense1": {"kernel": jnp.array([[2.0], [-3.0]]), "bias": jnp.ones(1)}}
      >>> occlusion(net, params, jnp.array([[[1.0], [1.0]]]), window=1, fill=0.0)
      Array([[ 2., -3.]], dtype=float32)
    """
    window = as_pair("window", window)
    stride = as_pair("stride", stride)
    fill = check_number("fill", fill)
    return explain_logit(_occlusion, net, params, image, label, fill, window=window, stride=stride)


def _occlusion(
    net: Layer, params: Params, image: Array, label: Label, fill: Scalar, *, window: Pair, stride: Pair
) -> Array:
    (image,) = to_floats(image)
    logit = logit_function(net, params, image, label)

    def covered_logit(rows: Array, columns: Array) -> Array:
        covered = rows[:, None, None] & columns[None, :, None]
        return logit(jnp.where(covered, jnp.asarray(fill, image.dtype), image))

    covered_logits = jax.vmap(jax.vmap(covered_logit, (None, 0)), (0, None))
    rows = _covered(image.shape[0], window[0], stride[0])
    columns = _covered(image.shape[1], window[1], stride[1])
    return logit(image) - covered_logits(rows, columns)


def _covered(size: int, window: int, stride: int) -> Bool[Array, "windows size"]:
    """Which of an axis' pixels each window covers."""
    positions = np.arange(size)
    first = positions[::stride, None] - (window - 1) // 2
    return jnp.asarray((positions >= first) & (positions < first + window))


def grad_cam(
    net: Layer, params: Params, image: Shaped[ArrayLike, "H W C"], *, label: Label = None, stage: str | None = None
) -> Float[Array, "H2 W2"]:
    """Grad-CAM: where the features of a stage support the class.

        out = ReLU(Σ_k w_k A_k)    w_k = mean over y, x of ∂ logit / ∂ A_k[y, x]

    A_k is feature k of the stage's activations (H', W', K).

    Args:
      net, params, image, label: as in `saliency`.
      stage: a name of `stages(net, params, image)`; by default the last one that is not pooled. Early stages localize
        better, late stages are more specific to the class.

    Returns:
      A map (H', W'), at least 0; `jax.image.resize` enlarges it to the image.

    Raises:
      TypeError, ValueError: as `saliency`; there is no such stage.

    Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization" (2017),
      https://arxiv.org/abs/1610.02391.

    Example:
      >>> from cnn_jax import Activation, Chain, Dense, Flatten
      >>> net = Chain(Activation(jax.nn.relu), Flatten(), Dense(1))
      >>> params = {"dense1": {"kernel": jnp.array([[2.0], [4.0]]), "bias": jnp.ones(1)}}
      >>> grad_cam(net, params, jnp.array([[[1.0], [2.0]]]), stage="relu1")
      Array([[3., 6.]], dtype=float32)
    """
    return explain_logit(_grad_cam, net, params, image, label, stage=stage)


def _grad_cam(net: Layer, params: Params, image: Array, label: Label, *, stage: str | None) -> Array:
    (image,) = to_floats(image)
    stage, activation = find_stage(net, params, image, stage)
    logit_of = select_logit(net, params, image, label)

    def logit_with_offset(offset: Array) -> tuple[Array, Array]:
        """The logit after `offset` is added to the stage, and the stage's activations."""
        activations = net.stages(
            params, image, intercept=lambda name, value: value + offset if name == stage else value
        )
        return logit_of(next(reversed(activations.values()))), activations[stage]

    # An offset that all devices shared would have the sum of their gradients.
    no_offset = vary_like(jnp.zeros(activation.shape, activation.dtype), image)
    gradient, maps = jax.grad(logit_with_offset, has_aux=True)(no_offset)
    weights = gradient.mean(axis=(0, 1), keepdims=True)
    return jax.nn.relu(jnp.sum(weights * maps, axis=-1))
