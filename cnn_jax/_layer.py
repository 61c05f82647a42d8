"""A layer: a pair of pure functions, and the types of its parts."""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, ArrayLike, Shaped

from ._errors import describe
from ._padding import explicit_padding
from ._typing import Padding, Pair, Shape
from ._validation import as_pair

Params = dict[str, Any]  # Any: an array, or the Params of an inner layer
# An ordered dict keeps its order through jit and vmap, which sort the keys of a plain one.
Stages = collections.OrderedDict[str, Array]


@runtime_checkable
class Init(Protocol):
    """Makes the parameters of a layer for inputs of one shape."""

    def __call__(self, key: Array, shape: Shape) -> Params: ...


@runtime_checkable
class Apply(Protocol):
    """Computes the output of a layer for one input."""

    def __call__(
        self, params: Params, image: Shaped[ArrayLike, "..."], /, *, train: bool = False, key: Array | None = None
    ) -> Array: ...


@runtime_checkable
class Intercept(Protocol):
    """Receives an intermediate activation and its name; returns its replacement."""

    def __call__(self, name: str, value: Array, /) -> Array: ...


def identity(name: str, value: Array) -> Array:
    """The `Intercept` that returns every intermediate activation unchanged."""
    return value


@runtime_checkable
class ApplyWithIntermediates(Protocol):
    """Computes the intermediate activations of a layer for one input, the output last."""

    def __call__(
        self,
        params: Params,
        image: Shaped[ArrayLike, "..."],
        /,
        *,
        train: bool = False,
        key: Array | None = None,
        intercept: Intercept = identity,
    ) -> Stages: ...


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer or a whole network: the pure functions `init` and `apply`, and its kind.

    Args:
      init: `init(key, shape)` makes the parameters for inputs of that shape: a nested dict of float32 arrays, empty for
        a layer without parameters.
      apply: `apply(params, image, *, train=False, key=None)` computes the output for one input, a JAX or a NumPy array;
        `jax.vmap` gives batches. `train` and `key` are passed by name. `key` is the random key for training.
      name: the kind of layer; `Chain` numbers layers of one kind: "conv1", "conv2".
      apply_with_intermediates: for a layer with inner layers, `apply` that returns all intermediate activations by
        name, the output last. It gets `intercept`, as in `stages`, only when the caller of `stages` passes one.

    >>> from cnn_jax.layers import Chain, Flatten
    >>> import jax
    >>> def init(key, shape):
    ...     return {"factor": 2.0 * jax.numpy.ones(shape[-1])}
    >>> def apply(params, image, *, train=False, key=None):
    ...     return image * params["factor"][None, None]
    >>> net = Chain(Layer(init, apply, "scale"), Flatten())
    >>> net.apply(net.init(jax.random.key(0), (1, 2, 1)), jax.numpy.ones((1, 2, 1)))
    Array([2., 2.], dtype=float32)
    """

    init: Init
    apply: Apply
    name: str = "layer"
    apply_with_intermediates: ApplyWithIntermediates | None = None

    def stages(
        self,
        params: Params,
        image: Shaped[ArrayLike, "..."],
        *,
        train: bool = False,
        key: Array | None = None,
        intercept: Intercept = identity,
    ) -> Stages:
        """Intermediate activations by name, in the order of computation, the output last.

        Args:
          params, image, train, key: as in `apply`.
          intercept: `intercept(name, value)` returns the activation that replaces `value`, also for all later layers
            (activation patching). It is called for composite layers and for their inner layers, but not for the
            statistics of `BatchNorm`.

        Returns:
          An ordered dict. The activations of inner layers have paths as names: "residual1/conv1".

        Raises:
          ValueError, TypeError: as `apply`.

        >>> from cnn_jax.layers import Chain, Flatten, MaxPool
        >>> import jax.numpy as jnp
        >>> net = Chain(MaxPool(), Flatten())
        >>> list(net.stages({}, jnp.ones((4, 4, 1))))
        ['max_pool1', 'flatten1']
        >>> def double_pool(name, value):
        ...     return 2 * value if name == "max_pool1" else value
        >>> net.stages({}, jnp.ones((4, 4, 1)), intercept=double_pool)["flatten1"]
        Array([2., 2., 2., 2.], dtype=float32)
        """
        if self.apply_with_intermediates is None:
            output = self.apply(params, image, train=train, key=key)
            return Stages({self.name: intercept(self.name, output)})
        if intercept is identity:
            return self.apply_with_intermediates(params, image, train=train, key=key)
        return self.apply_with_intermediates(params, image, train=train, key=key, intercept=intercept)


def init_without_params(key: Array, shape: Shape) -> Params:
    """The `init` of a layer without parameters."""
    return {}


def stateless(name: str, fn: Callable[[Shaped[ArrayLike, "..."]], Array]) -> Layer:
    """A layer without parameters that computes a function of its input."""

    def apply(
        params: Params, image: Shaped[ArrayLike, "..."], *, train: bool = False, key: Array | None = None
    ) -> Array:
        return fn(image)

    return Layer(init_without_params, apply, name)


def check_window(
    name: str, window: int | Sequence[int], stride: int | Sequence[int], padding: Padding
) -> tuple[Pair, Pair]:
    """A window and a stride as pairs. Checks the padding too, when the layer is made rather than when it is applied."""
    window = as_pair(name, window)
    stride = as_pair("stride", stride)
    explicit_padding(padding, window, window, stride, names=("image", name))
    return window, stride


def check_net(net: object) -> None:
    """Raises a TypeError unless `net` is a Layer.

    >>> check_net({"dense1": {}})
    Traceback (most recent call last):
    TypeError: net: expected a Layer, such as a Chain, got dict
    """
    if not isinstance(net, Layer):
        raise TypeError(f"net: expected a Layer, such as a Chain, got {describe(net)}")
