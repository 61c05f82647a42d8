"""Layers of other convolutions: transposed, depthwise and separable."""

from collections.abc import Sequence
from dataclasses import KW_ONLY

import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jaxtyping import Array, ArrayLike, Float, Shaped

from ._algorithms import check_method
from ._chain import Chain
from ._kernel_layers import Conv, check_image_shape, check_kernel_options, he_normal, init_bias
from ._layer import Layer
from ._layer_options import check_window
from ._params import Params
from ._typing import Padding, Shape
from ._validation import as_pair, check_int
from ._xla import spread_bias
from .convolution import conv_transpose


class ConvTranspose(Layer):
    """Transposed convolution layer, named "conv_transpose": `conv_transpose` with learned kernels, plus a bias per
    feature.

    The default doubles the rows and columns. Its parameters are "kernel" and "bias".

    Args:
      features: number of kernels, the channels of the output.
      kernel_size: rows and columns of the kernels, an int or (h, w).
      stride, padding, method: as in `conv_transpose`.
      use_bias: adds a learned bias, initially 0, to each feature map.
      kernel_init: initializer of the kernels (h, w, C, features).

    Raises:
      ValueError: an int below 1, an unknown padding; from `init`, a shape that is not (H, W, C).
      TypeError: an option of another kind, such as a number of kernels that is not an int.

    Source: Zeiler et al., "Deconvolutional Networks" (2010), https://doi.org/10.1109/CVPR.2010.5539957

    >>> import jax
    >>> net = ConvTranspose(4)
    >>> params = net.init(jax.random.key(0), (8, 8, 1))
    >>> net.apply(params, jnp.ones((8, 8, 1))).shape
    (16, 16, 4)
    """

    features: int
    kernel_size: int | Sequence[int] = 2
    _: KW_ONLY
    stride: int | Sequence[int] = 2
    padding: Padding = "VALID"
    use_bias: bool = True
    kernel_init: Initializer = he_normal
    method: str = "auto"
    name = "conv_transpose"

    def __post_init__(self) -> None:
        features = check_int("features", self.features)
        check_kernel_options(self.kernel_init, self.use_bias)
        check_method(self.method)
        kernel_size, stride, padding = check_window("kernel_size", self.kernel_size, self.stride, self.padding)
        self._set(features=features, kernel_size=kernel_size, stride=stride, padding=padding)

    def _init(self, key: Array, shape: Shape) -> Params:
        channels = check_image_shape("ConvTranspose", shape)[2]
        kernel_size = as_pair("kernel_size", self.kernel_size)
        kernel = self.kernel_init(key, (*kernel_size, channels, self.features), jnp.float32)
        return {"kernel": kernel} | init_bias(self.features, self.use_bias)

    def _apply(
        self, params: Params, image: Shaped[ArrayLike, "H W C"], *, train: bool = False, key: Array | None = None
    ) -> Float[Array, "H2 W2 K"]:
        out = conv_transpose(image, params["kernel"], stride=self.stride, padding=self.padding, method=self.method)
        return out + spread_bias(params["bias"], out.shape) if self.use_bias else out


class DepthwiseConv(Layer):
    """Depthwise convolution layer, named "depthwise_conv": kernels that see one channel each, plus a bias per feature.

    The channel c of the image becomes the features c multiplier to (c + 1) multiplier - 1. The parameters are "kernel"
    (h, w, 1, C multiplier) and "bias".

    Args:
      kernel_size: rows and columns of the kernels, an int or (h, w).
      multiplier: number of kernels for each channel.
      stride, padding, dilation: as in `conv`.
      use_bias: adds a learned bias, initially 0, to each feature map.
      kernel_init: initializer of the kernels (h, w, 1, C multiplier).

    Raises:
      ValueError: an int below 1, an unknown padding; from `init`, a shape that is not (H, W, C).
      TypeError: an option of another kind, such as a number of kernels that is not an int.

    Source: Howard et al., "MobileNets" (2017), https://arxiv.org/abs/1704.04861

    >>> import jax
    >>> net = DepthwiseConv(3, multiplier=2)
    >>> jax.tree.map(jnp.shape, net.init(jax.random.key(0), (8, 8, 5)))
    {'bias': (10,), 'kernel': (3, 3, 1, 10)}
    """

    kernel_size: int | Sequence[int] = 3
    _: KW_ONLY
    multiplier: int = 1
    stride: int | Sequence[int] = 1
    padding: Padding = "VALID"
    dilation: int | Sequence[int] = 1
    use_bias: bool = True
    kernel_init: Initializer = he_normal
    name = "depthwise_conv"

    def __post_init__(self) -> None:
        multiplier = check_int("multiplier", self.multiplier)
        dilation = as_pair("dilation", self.dilation)
        check_kernel_options(self.kernel_init, self.use_bias)
        kernel_size, stride, padding = check_window("kernel_size", self.kernel_size, self.stride, self.padding)
        self._set(kernel_size=kernel_size, multiplier=multiplier, stride=stride, padding=padding, dilation=dilation)

    def _init(self, key: Array, shape: Shape) -> Params:
        return self._conv(check_image_shape("DepthwiseConv", shape)[2]).init(key, shape)

    def _apply(
        self, params: Params, image: Shaped[ArrayLike, "H W C"], *, train: bool = False, key: Array | None = None
    ) -> Float[Array, "H2 W2 K"]:
        return self._conv(jnp.shape(params["kernel"])[3] // self.multiplier).apply(params, image)

    def _conv(self, channels: int) -> Conv:
        """The same convolution for a known number of channels."""
        return Conv(
            channels * self.multiplier,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=channels,
            use_bias=self.use_bias,
            kernel_init=self.kernel_init,
        )


class SeparableConv(Chain):
    """Depthwise separable convolution layer, named "separable_conv": a depthwise convolution, then a 1x1 convolution.

        h w C + C features weights, where `Conv` has h w C features

    Its inner layers are "depthwise_conv1", without a bias, and "conv1".

    Args:
      features: number of channels of the output.
      kernel_size: rows and columns of the depthwise kernels, an int or (h, w).
      stride, padding, dilation: of the depthwise convolution, as in `conv`.
      use_bias: adds a learned bias, initially 0, to each feature map.
      kernel_init: initializer of both kernels.

    Raises:
      ValueError: an int below 1, an unknown padding; from `init`, a shape that is not (H, W, C).
      TypeError: an option of another kind, such as a number of kernels that is not an int.

    Source: Howard et al., "MobileNets" (2017), https://arxiv.org/abs/1704.04861

    >>> import jax
    >>> net = SeparableConv(4, padding="SAME")
    >>> params = net.init(jax.random.key(0), (8, 8, 3))
    >>> {name: stage.shape for name, stage in net.stages(params, jnp.ones((8, 8, 3))).items()}
    {'depthwise_conv1': (8, 8, 3), 'conv1': (8, 8, 4)}
    """

    features: int
    kernel_size: int | Sequence[int] = 3
    _: KW_ONLY
    stride: int | Sequence[int] = 1
    padding: Padding = "VALID"
    dilation: int | Sequence[int] = 1
    use_bias: bool = True
    kernel_init: Initializer = he_normal
    name = "separable_conv"
    __repr__ = Layer.__repr__

    def __post_init__(self) -> None:
        features = check_int("features", self.features)
        depthwise = DepthwiseConv(
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            use_bias=False,
            kernel_init=self.kernel_init,
        )
        pointwise = Conv(features, 1, use_bias=self.use_bias, kernel_init=self.kernel_init)
        self._set(features=features, kernel_size=depthwise.kernel_size, stride=depthwise.stride)
        self._set(padding=depthwise.padding, dilation=depthwise.dilation, layers=(depthwise, pointwise))
